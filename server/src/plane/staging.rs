//! A contribution that is being received, as the one that receives it sees it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use hw2_common::ids::Assignment;
use hw2_common::wire::WireError;
use hw2_proto::v1::Chunk;
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use super::addend::{Addend, Fault, Ticket};
use super::{Plane, work};

/// The tensors of a contribution that is being received; dropping it withdraws them.
pub(crate) struct Staging {
    plane: Plane,
    /// None when the tensors are not of the step under way: nobody wants them.
    ticket: Option<Ticket>,
    /// Whether all chunks are good; none when nobody looks at them.
    verdict: Option<oneshot::Receiver<Result<(), Fault>>>,
    /// The same, when it is known.
    told: Option<Result<(), Fault>>,
}

/// The tensors of a contribution that is complete.
pub(crate) struct Tensors {
    pub(crate) gradient: Staging,
    /// BN statistics of the micro-batch, (buffers).
    pub(crate) statistics: Vec<f32>,
}

impl Plane {
    /// The contribution to `assignment` begins to arrive.
    pub(crate) fn stage(&self, assignment: Assignment) -> Staging {
        let Assignment { step, replica } = assignment;
        let ticket = Ticket(self.0.tickets.fetch_add(1, Ordering::Relaxed));
        let mut state = self.0.lock();
        let draft = state.draft.as_mut().filter(|draft| draft.step() == step);
        let verdict = draft.map(|draft| draft.begin(ticket, replica));
        let ticket = verdict.is_some().then_some(ticket);
        Staging { plane: self.clone(), ticket, verdict, told: None }
    }
}

impl Staging {
    /// Chunk number `chunk` of the gradient is there, as it arrived.
    ///
    /// # Errors
    /// It or one before it is known to be corrupt.
    pub(crate) fn put(&mut self, chunk: usize, gradient: Chunk) -> Result<(), WireError> {
        let Some(ticket) = self.ticket else { return Ok(()) };
        let gradient = Addend::Received(gradient, self.plane.0.job.config.wire);
        let mut state = self.plane.0.lock();
        let jobs = state.draft.as_mut().map(|draft| draft.put(ticket, chunk, gradient));
        drop(state);
        for job in jobs.into_iter().flatten() {
            match job.is_inspection() {
                // By this thread, in whose core's cache it is now.
                true => work(&self.plane.0, job),
                false => Arc::clone(&self.plane.0).spawn(job),
            }
        }
        match self.verdict.as_mut().map(oneshot::Receiver::try_recv) {
            Some(Ok(told)) => (self.told, self.verdict) = (Some(told), None),
            // The step is over: nobody looks at them any more.
            Some(Err(TryRecvError::Closed)) => self.verdict = None,
            Some(Err(TryRecvError::Empty)) | None => {}
        }
        match &self.told {
            Some(Err(Fault::Corrupt(error))) => Err(error.clone()),
            _ => Ok(()),
        }
    }

    /// All chunks are there: waits until each has been looked at, or the step is over.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(crate) async fn verify(&mut self) -> Result<(), Fault> {
        match (self.told.take(), self.verdict.take()) {
            (Some(told), _) => told,
            (None, Some(verdict)) => verdict.await.unwrap_or(Ok(())),
            (None, None) => Ok(()),
        }
    }

    /// It counts, and is not withdrawn any more.
    ///
    /// # Panics
    /// If it is not of the step under way.
    pub(super) fn keep(mut self) -> Ticket {
        self.ticket.take().expect("what counts is of the step under way")
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let mut state = self.plane.0.lock();
        let jobs = state.draft.as_mut().map(|draft| draft.withdraw(ticket));
        drop(state);
        self.plane.spawn(jobs.into_iter().flatten());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::Update;
    use hw2_common::config::Config;
    use hw2_common::ids::{GlobalStep, ReplicaId};
    use hw2_common::job::{Card, Job};
    use hw2_common::model::{Block, ModelSpec};
    use hw2_common::state::State;
    use hw2_common::wire::{self, Cut};
    use hw2_proto::v1::VectorKind;

    /// Of a network of one layer, whose first step is under way.
    fn plane() -> (Plane, Chunk) {
        let blocks = vec![Block::SoftmaxLinear { name: "softmax".into() }];
        let config = Config { model: ModelSpec { image_size: 8, blocks }, ..Config::default() };
        let classes = vec!["a".into(), "b".into()];
        let dataset = Card { classes, train: 9, val: 9, fingerprint: "dataset".into() };
        let job = Job { config, dataset };
        let layout = job.layout().unwrap();
        let gradient = vec![0.5; layout.params.len()];
        let checksums = wire::checksums(&gradient);
        let chunk = wire::chunks(VectorKind::Gradient, 0, &Arc::new(gradient), &checksums).next();
        let cut = Cut::params(&layout, job.config.wire, 1);
        let vectors = State::initial(&job.config, &layout).vectors;
        let plane = Plane::start(&job, cut, GlobalStep(0), vectors, || {}).unwrap();
        plane.begin(GlobalStep(0), Update { number: 1, learning_rate: 0.1 });
        (plane, chunk.unwrap())
    }

    #[tokio::test]
    async fn what_arrives_after_its_step_was_dropped_is_nobodys_affair() {
        let (plane, chunk) = plane();
        let assignment = Assignment { step: GlobalStep(0), replica: ReplicaId(0) };
        let mut staging = plane.stage(assignment);
        plane.discard();
        staging.put(0, chunk).unwrap();
        assert_eq!(staging.verify().await, Ok(()));
    }
}
