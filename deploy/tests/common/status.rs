//! What a running server says of itself, and waiting until it says something in particular.

use std::time::{Duration, Instant};

use serde::Deserialize;

use super::process::hw2;

/// Nothing that a test waits for takes this long.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// Time between two looks.
const PAUSE: Duration = Duration::from_millis(5);

/// The answer of `hw2 status --json`, as far as the tests read it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Status {
    pub(crate) phase: String,
    pub(crate) global_step: u64,
    pub(crate) workers: Vec<WorkerStatus>,
    pub(crate) last_checkpoint: String,
    pub(crate) releases: u64,
    pub(crate) replayed_steps: u64,
    pub(crate) bad_images: u64,
}

/// One worker.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct WorkerStatus {
    pub(crate) label: String,
    pub(crate) leased_replicas: Vec<u32>,
    pub(crate) owed_replicas: Vec<u32>,
    pub(crate) contributions: u64,
}

impl Status {
    /// Asks the server at `address`; none when it does not answer.
    pub(crate) fn of(address: &str) -> Option<Self> {
        let ended = hw2(["status", "--ps", address, "--json"]);
        (ended.code == Some(0)).then(|| serde_json::from_str(&ended.stdout).unwrap())
    }

    /// The worker that is process `pid`, which its label (host:pid device) names.
    pub(crate) fn worker(&self, pid: u32) -> Option<&WorkerStatus> {
        let part = format!(":{pid} ");
        self.workers.iter().find(|worker| worker.label.contains(&part))
    }
}

/// Looks again and again until `look` finds something.
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < WAIT_MAX, "waited {WAIT_MAX:?} for {what}");
        std::thread::sleep(PAUSE);
    }
}
