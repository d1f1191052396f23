//! A contribution on its way, and what is known of its chunks.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::plane::addend::{Addend, Fault, Operand, Ticket};

/// The gradient of a contribution, as far as it is there.
#[derive(Debug)]
pub(super) struct Arriving {
    pub(super) replica: usize,
    chunks: Vec<Arrival>,
    /// What is wrong with it. Of several values that do not fit, the first in the vector: which
    /// chunk is looked at first is chance.
    fault: Option<Fault>,
    /// Told once: of bytes that are not those that were sent, at once; else when all chunks are
    /// inspected.
    verdict: Option<oneshot::Sender<Result<(), Fault>>>,
}

/// One chunk.
#[derive(Debug, Default)]
struct Arrival {
    /// As long as somebody may need it.
    addend: Option<Arc<Addend>>,
    stage: Stage,
}

/// How far the inspection of a chunk is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Due,
    /// A job does it.
    UnderWay,
    Done,
}

impl Arriving {
    /// Of `replica`, in so many chunks; and where the verdict will come.
    pub(super) fn new(
        replica: usize,
        chunks: usize,
    ) -> (Self, oneshot::Receiver<Result<(), Fault>>) {
        let chunks = (0..chunks).map(|_| Arrival::default()).collect();
        let (sender, verdict) = oneshot::channel();
        (Self { replica, chunks, fault: None, verdict: Some(sender) }, verdict)
    }

    /// A chunk is there.
    pub(super) fn put(&mut self, lane: usize, gradient: Addend) {
        self.chunks[lane].addend = Some(Arc::new(gradient));
    }

    /// Whether a chunk can be used.
    pub(super) fn has(&self, lane: usize) -> bool {
        self.chunks[lane].addend.is_some()
    }

    /// Whether nothing is known to be wrong.
    pub(super) fn is_good(&self) -> bool {
        self.fault.is_none()
    }

    /// A chunk that can be used, for a job, which inspects it if no other has begun to.
    pub(super) fn operand(&mut self, lane: usize, ticket: Ticket) -> Option<Operand> {
        match self.chunks[lane].stage {
            Stage::Due => self.unread(lane, ticket),
            Stage::UnderWay | Stage::Done => {
                self.chunks[lane].addend.as_ref().map(|addend| Operand::known(Arc::clone(addend)))
            }
        }
    }

    /// The same of one that no job has read yet.
    pub(super) fn unread(&mut self, lane: usize, ticket: Ticket) -> Option<Operand> {
        let Arrival { addend: Some(addend), stage: stage @ Stage::Due } = &mut self.chunks[lane]
        else {
            return None;
        };
        *stage = Stage::UnderWay;
        Some(Operand::unknown(Arc::clone(addend), ticket))
    }

    /// Takes in what was found out about a chunk.
    pub(super) fn inspected(&mut self, lane: usize, result: Result<(), Fault>) {
        self.chunks[lane].stage = Stage::Done;
        if let Err(fault) = result {
            self.take(lane);
            let first = self.fault.take();
            self.fault = Some(first.map_or(fault.clone(), |first| first.gravest(fault)));
        }
        let is_corrupt = matches!(self.fault, Some(Fault::Corrupt(_)));
        if (is_corrupt || self.chunks.iter().all(|arrival| arrival.stage == Stage::Done))
            && let Some(sender) = self.verdict.take()
        {
            // Nobody may wait for it any more.
            let _ = sender.send(self.fault.clone().map_or(Ok(()), Err));
        }
    }

    /// Gives a chunk away, or frees its memory.
    pub(super) fn take(&mut self, lane: usize) -> Option<Arc<Addend>> {
        self.chunks[lane].addend.take()
    }

    /// Frees the memory of all chunks.
    pub(super) fn free_all(&mut self) {
        self.chunks.iter_mut().for_each(|arrival| arrival.addend = None);
    }
}
