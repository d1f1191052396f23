//! A thread that does one connection's I/O, and blocking calls into it.

use std::future::Future;
use std::thread::JoinHandle;

use hw2_common::turns;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::PsError;

/// A single-threaded runtime on a thread of its own; dropping it ends the thread and its tasks.
pub(crate) struct IoThread {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl IoThread {
    /// Starts the thread.
    pub(crate) fn start(name: &str) -> std::io::Result<Self> {
        let runtime = turns::runtime()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name(name.into()).spawn(move || {
            // Ends when the sender is used or dropped.
            let _ = runtime.block_on(stopped);
        })?;
        Ok(Self { handle, stop: Some(stop), thread: Some(thread) })
    }

    /// Runs `future` here, over the I/O of the thread, until it is done or `stop` is cancelled.
    pub(crate) fn call<T>(
        &self,
        stop: &CancellationToken,
        future: impl Future<Output = Result<T, PsError>>,
    ) -> Result<T, PsError> {
        self.handle.block_on(async {
            tokio::select! {
                biased;
                result = future => result,
                () = stop.cancelled() => Err(PsError::Stopped),
            }
        })
    }

    /// Runs `future` on the thread without waiting.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        self.handle.spawn(future)
    }
}

impl Drop for IoThread {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed where it happened.
            let _ = thread.join();
        }
    }
}
