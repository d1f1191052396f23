//! Who decides about pushes: the coordinator here, or the one that this server follows.

use hw2_common::ids::{Assignment, Term, WorkerId};
use tokio::sync::oneshot;

use crate::coordinator::{Admission, Coordinator, Outcome, Refusal, Share};
use crate::driver::Driver;
use crate::handle::{Gone, Handle};
use crate::plane::Tensors;
use crate::shard::Follower;

/// Decides which pushes are let in and which count.
#[derive(Clone)]
pub(crate) enum Judge {
    Coordinator(Handle<Driver>),
    Follower(Handle<Follower>),
}

impl Judge {
    /// Asks whether a push is let in, where that is not clear; none if it is to be read and
    /// dropped. What `open` makes, it makes on the judge's side: then it is there even if this call
    /// is cut off right now, and the pushes of a worker are opened in the order in which they were
    /// let in.
    pub(super) async fn admit<T: Send + 'static>(
        &self,
        term: Term,
        worker: WorkerId,
        assignment: Assignment,
        open: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Result<Option<T>, Refusal>, Gone> {
        let opened = move |admission| match admission {
            Admission::Receive => Some(open()),
            Admission::Discard => None,
        };
        match self {
            Self::Coordinator(driver) => {
                let admit = move |coordinator: &mut Coordinator, now| {
                    coordinator.admit(now, worker, assignment)
                };
                driver.call(move |driver| driver.in_term(term, admit)?.map(opened)).await
            }
            Self::Follower(follower) => {
                let (answer, wait) = oneshot::channel();
                let answered = move |admission: Result<Admission, Refusal>| {
                    // What is opened for nobody would end a newer push.
                    !answer.is_closed() && answer.send(admission.map(opened)).is_ok()
                };
                follower.post(move |follower| follower.admit(term, worker, assignment, answered));
                wait.await.map_err(|_| Gone)
            }
        }
    }

    /// A push is complete here.
    pub(super) async fn receive(
        &self,
        share: Share,
        tensors: Tensors,
    ) -> Result<Result<Outcome, Refusal>, Gone> {
        match self {
            Self::Coordinator(driver) => {
                driver.call(move |driver| driver.receive(share, tensors)).await
            }
            Self::Follower(follower) => {
                let receive = move |follower: &mut Follower| follower.receive(share, tensors);
                follower.call(receive).await.map(|()| Ok(Outcome::Received))
            }
        }
    }

    /// A push was cut off, or was not one.
    pub(super) fn push_failed(&self, worker: WorkerId, assignment: Assignment) {
        match self {
            Self::Coordinator(driver) => {
                driver.post(move |driver| driver.push_failed(worker, assignment));
            }
            Self::Follower(follower) => {
                follower.post(move |follower| follower.push_failed(worker, assignment));
            }
        }
    }
}
