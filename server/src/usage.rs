//! What this process costs the machine.

use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

/// Since the process began.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// Processor time of all threads.
    pub(crate) cpu: Duration,
    /// The most memory that was resident at once.
    pub(crate) peak_memory_bytes: u64,
}

impl Usage {
    /// Until now; nothing where the system does not tell.
    pub(crate) fn now() -> Self {
        let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else { return Self::default() };
        let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
        Self {
            cpu: Duration::from_micros(micros as u64),
            // Linux tells it in KiB.
            peak_memory_bytes: usage.max_rss() as u64 * 1024,
        }
    }
}
