//! Calls that are answered later.

use tokio::sync::oneshot;
use tonic::Status;

use crate::coordinator::{Refusal, Waiter};
use crate::driver::Driver;
use crate::handle::{Gone, Handle};

/// A call that is answered later. When it is cut off, the driver forgets it: an answer would give
/// a lease to nobody.
pub(super) struct Waiting<T> {
    driver: Handle<Driver>,
    waiter: Option<Waiter>,
    wait: oneshot::Receiver<T>,
}

impl<T: Send + 'static> Waiting<T> {
    /// Has the driver begin the call.
    pub(super) async fn begin(
        driver: &Handle<Driver>,
        call: impl FnOnce(&mut Driver) -> Result<(Waiter, oneshot::Receiver<T>), Refusal>
        + Send
        + 'static,
    ) -> Result<Self, Status> {
        let handle = driver.clone();
        // Made on the driver's side: then it is there even if this call is cut off right now.
        let begin = move |driver: &mut Driver| {
            let (waiter, wait) = call(driver)?;
            Ok::<_, Refusal>(Self { driver: handle, waiter: Some(waiter), wait })
        };
        Ok(driver.call(begin).await??)
    }

    /// Waits for the answer.
    pub(super) async fn answer(&mut self) -> Result<T, Status> {
        let answer = (&mut self.wait).await.map_err(|_| Gone)?;
        self.waiter = None;
        Ok(answer)
    }
}

impl<T> Drop for Waiting<T> {
    fn drop(&mut self) {
        if let Some(waiter) = self.waiter {
            self.driver.post(move |driver| driver.forget(waiter));
        }
    }
}
