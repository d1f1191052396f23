//! Waiting for servers that are not there yet.

use std::time::{Duration, Instant};

use anyhow::bail;
use hw2_common::address::Addresses;
use tokio_util::sync::CancellationToken;

use super::{Client, Hello, PsError};

/// First and longest pause between two attempts.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(1);
/// Time between two lines about a server that is not there.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(30);

/// Longer and longer pauses between attempts.
pub struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: RETRY_MIN }
    }
}

impl Backoff {
    /// Pauses.
    pub fn wait(&mut self) {
        std::thread::sleep(self.next);
        self.next = (self.next * 2).min(RETRY_MAX);
    }
}

/// Connects, and asks for the job until there is one; nothing when asked to stop.
///
/// # Errors
/// The servers refuse this worker, one has a job that it cannot use, or cannot be reached for as
/// long as `patience`.
pub fn reach(
    ps: &Addresses,
    patience: Duration,
    stop: &CancellationToken,
) -> anyhow::Result<Option<(Client, Hello)>> {
    let began = Instant::now();
    let mut complained: Option<Instant> = None;
    let mut backoff = Backoff::default();
    while !stop.is_cancelled() {
        let answer = Client::connect(ps, stop)
            .and_then(|client| client.hello().map(|hello| (client, hello)));
        match answer {
            Ok(answer) => return Ok(Some(answer)),
            Err(PsError::Stopped) => return Ok(None),
            Err(error @ (PsError::Refused(_) | PsError::Protocol(_))) => return Err(error.into()),
            Err(error) if began.elapsed() >= patience => bail!(
                "no server at {ps} for {} s ({error}): start ps-server there, or correct --ps",
                patience.as_secs()
            ),
            Err(error) => {
                if complained.is_none_or(|before| before.elapsed() >= COMPLAINT_INTERVAL) {
                    complained = Some(Instant::now());
                    tracing::warn!("no server at {ps} yet, trying again: {error}");
                }
            }
        }
        backoff.wait();
    }
    Ok(None)
}
