//! What the coordinator and a follower say to each other, and the coordinator's list of those that
//! are there.

use std::sync::{Arc, Mutex, PoisonError};

use hw2_common::checkpoint::PartFile;
use hw2_common::ids::{Assignment, GlobalStep, Term, WorkerId};
use hw2_common::shard::Shard;
use tokio::sync::mpsc;

use crate::coordinator::{Admission, Order, Refusal, Share};

/// From the coordinator.
#[derive(Debug)]
pub(crate) enum ToFollower {
    Welcome(Welcome),
    Order(Order),
    /// Answers [`FromFollower::PushBegins`].
    Admission {
        id: u64,
        answer: Result<Admission, Refusal>,
    },
    /// Write the state of `step`, as it is now, into a folder of the run's folder.
    Save {
        id: u64,
        step: GlobalStep,
        folder: String,
    },
    /// The term ends in good order.
    Stop {
        reason: String,
    },
}

/// To the coordinator.
#[derive(Debug)]
pub(crate) enum FromFollower {
    /// The state of the term is there.
    Ready,
    PushBegins {
        id: u64,
        worker: WorkerId,
        assignment: Assignment,
    },
    Received(Share),
    PushFailed(WorkerId, Assignment),
    /// What a commit ordered.
    UpdateMade,
    Saved {
        id: u64,
        saved: SavedPart,
    },
    /// It was asked to stop.
    Leaving(String),
    /// It cannot have the state of the term; the answer is [`ToFollower::Stop`].
    Unfit(String),
}

/// A follower's part of a checkpoint, or why there is none.
pub(crate) type SavedPart = Result<PartFile, String>;

/// How a term begins.
#[derive(Clone, Debug)]
pub(crate) struct Welcome {
    pub(crate) term: Term,
    pub(crate) job_json: String,
    /// Where the coordinator has the run's folder.
    pub(crate) run_dir: String,
    pub(crate) probe: Probe,
    /// Of the checkpoint to begin with, if there is one.
    pub(crate) checkpoint: Option<GlobalStep>,
    /// Whether the coordinator writes a trace.
    pub(crate) traces: bool,
}

/// A file in the run's folder that tells whether a server sees the same one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Probe {
    pub(crate) file: String,
    pub(crate) content: String,
}

/// The coordinator's end of the link to a follower, for one term. Dropping it ends that.
pub(crate) struct FollowerLink {
    pub(crate) shard: Shard,
    pub(crate) orders: mpsc::UnboundedSender<ToFollower>,
    pub(crate) reports: mpsc::UnboundedReceiver<FromFollower>,
}

/// Takes in the followers as they come. Clones lead to the same one.
#[derive(Clone)]
pub(crate) struct Muster {
    count: usize,
    /// By index.
    taken: Arc<Mutex<Vec<bool>>>,
    arrived: mpsc::UnboundedSender<FollowerLink>,
}

/// The place of a server; free again when it is dropped.
pub(crate) struct Place {
    muster: Muster,
    index: usize,
}

impl Muster {
    /// Of a run on `count` servers, and where those that come can be had.
    pub(crate) fn new(count: usize) -> (Self, mpsc::UnboundedReceiver<FollowerLink>) {
        let (arrived, arrivals) = mpsc::unbounded_channel();
        let taken = Arc::new(Mutex::new(vec![false; count]));
        (Self { count, taken, arrived }, arrivals)
    }

    /// A server wants to take part.
    ///
    /// # Errors
    /// It is not one of this run, or another one is in its place.
    pub(crate) fn place(&self, shard: Shard) -> Result<Place, Refusal> {
        let Shard { index, count } = shard;
        if count != self.count || shard.is_coordinator() || index >= count {
            return Err(Refusal::NotNow(format!(
                "{shard} in a run on {} servers, of which this one is {}: --shard must have the same \
                 count everywhere, and each number once",
                self.count,
                Shard { index: 0, count: self.count }
            )));
        }
        match std::mem::replace(&mut self.taken()[index], true) {
            false => Ok(Place { muster: self.clone(), index }),
            true => Err(Refusal::Full(format!("another server is {shard} already"))),
        }
    }

    /// The server in a place is there.
    pub(crate) fn arrive(&self, follower: FollowerLink) {
        // A coordinator that is ending needs nobody.
        let _ = self.arrived.send(follower);
    }

    fn taken(&self) -> std::sync::MutexGuard<'_, Vec<bool>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.muster.taken()[self.index] = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_place_is_taken_once() {
        let (muster, _arrivals) = Muster::new(3);
        let shard = |index, count| Shard { index, count };
        let first = muster.place(shard(1, 3)).unwrap_or_else(|_| panic!("a free place"));
        assert!(matches!(muster.place(shard(1, 3)), Err(Refusal::Full(_))));
        assert!(muster.place(shard(2, 3)).is_ok());
        for wrong in [shard(0, 3), shard(1, 2), shard(3, 4)] {
            assert!(matches!(muster.place(wrong), Err(Refusal::NotNow(_))), "{wrong}");
        }
        drop(first);
        assert!(muster.place(shard(1, 3)).is_ok());
    }
}
