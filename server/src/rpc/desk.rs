//! What connections are served with. They outlive a term.

use std::sync::{Arc, PoisonError, RwLock};

use hw2_common::ids::Term;
use hw2_common::shard::Shard;
use tonic::Status;

use super::push::Receiver;
use crate::driver::Driver;
use crate::handle::Handle;
use crate::trace::TraceWriter;

/// The term under way, or none. Clones are one.
#[derive(Clone)]
pub(crate) struct Desk(Arc<RwLock<State>>);

enum State {
    /// Why there is none, for people.
    Closed(String),
    Open(Arc<Served>),
}

/// What a term is served with.
pub(crate) struct Served {
    pub(crate) term: Term,
    pub(crate) job_json: String,
    pub(crate) shard: Shard,
    /// Of the first server.
    pub(crate) coordinating: Option<Coordinating>,
    pub(crate) receiver: Receiver,
}

/// What only the coordinator answers with.
#[derive(Clone)]
pub(crate) struct Coordinating {
    pub(crate) driver: Handle<Driver>,
    pub(crate) heartbeat_interval_ms: u32,
    pub(crate) trace: Option<TraceWriter>,
}

impl Desk {
    /// Without a term, for this reason.
    pub(crate) fn closed(why: &str) -> Self {
        Self(Arc::new(RwLock::new(State::Closed(why.into()))))
    }

    /// A term begins.
    pub(crate) fn open(&self, served: Served) {
        self.set(State::Open(Arc::new(served)));
    }

    /// It ends, for this reason.
    pub(crate) fn close(&self, why: String) {
        self.set(State::Closed(why));
    }

    fn set(&self, standing: State) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = standing;
    }

    /// What the term is served with.
    pub(super) fn served(&self) -> Result<Arc<Served>, Status> {
        match &*self.0.read().unwrap_or_else(PoisonError::into_inner) {
            State::Open(served) => Ok(Arc::clone(served)),
            State::Closed(why) => Err(Status::unavailable(why)),
        }
    }

    /// Why there is no term; none if there is one.
    pub(super) fn why_closed(&self) -> Option<String> {
        match &*self.0.read().unwrap_or_else(PoisonError::into_inner) {
            State::Open(_) => None,
            State::Closed(why) => Some(why.clone()),
        }
    }

    /// What the coordinator answers with.
    pub(super) fn coordinating(&self) -> Result<Coordinating, Status> {
        let served = self.served()?;
        served.coordinating.clone().ok_or_else(|| {
            Status::failed_precondition(format!(
                "this server is {}: only {} decides, name that one first",
                served.shard,
                Shard { index: 0, ..served.shard }
            ))
        })
    }
}
