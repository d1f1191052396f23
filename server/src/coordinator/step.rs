//! The barrier of one step: which contributions are in, and whether a second one is the same.

use std::collections::BTreeMap;

use hw2_common::ids::{Assignment, ReplicaId, WorkerId};

use super::Now;

/// A contribution without its tensors.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Contribution {
    pub(crate) worker: WorkerId,
    pub(crate) assignment: Assignment,
    pub(crate) digest: Digest,
    pub(crate) result: StepResult,
    /// Names of images that could not be decoded and were replaced.
    pub(crate) bad_images: Vec<String>,
    /// What is not finite, in words; none when all is.
    pub(crate) non_finite: Option<String>,
}

/// Tells whether two contributions are the same bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Digest {
    /// Of each server's part of the gradient, as [`hw2_common::wire::Arrivals::digest`] makes it.
    pub(crate) gradient: Vec<u32>,
    /// Of the BN statistics, likewise.
    pub(crate) statistics: u32,
}

/// What a replica's micro-batch gave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct StepResult {
    /// L2 included.
    pub(crate) loss: f64,
    pub(crate) samples: u32,
    /// Images whose label has the largest logit.
    pub(crate) top1: u32,
}

/// The results of all replicas together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct StepSummary {
    /// Mean over the replicas.
    pub(crate) loss: f64,
    /// Part of the images whose label has the largest logit.
    pub(crate) top1: f64,
}

/// How a contribution or a block compares with what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recorded {
    First,
    Same,
    /// Not the same bits as this worker's.
    Differs(WorkerId),
}

/// What is in of the current step.
#[derive(Clone, Debug)]
pub(crate) struct StepBarrier {
    /// When the step could begin.
    pub(crate) began: Now,
    counted: Vec<Option<(WorkerId, Digest, StepResult)>>,
    /// Number of pushes under way: their replicas are not to be computed again, and not in yet.
    receiving: BTreeMap<(ReplicaId, WorkerId), u32>,
}

impl StepBarrier {
    /// Nothing is in.
    pub(crate) fn new(began: Now, replicas: u32) -> Self {
        Self { began, counted: vec![None; replicas as usize], receiving: BTreeMap::new() }
    }

    /// The lowest replica whose contribution is missing; none when all are in.
    pub(crate) fn next(&self) -> Option<ReplicaId> {
        let missing = self.counted.iter().position(Option::is_none)?;
        Some(ReplicaId(missing as u32))
    }

    /// Whether the contribution of `replica` is in.
    pub(crate) fn has(&self, replica: ReplicaId) -> bool {
        self.counted[replica.0 as usize].is_some()
    }

    /// A push of `worker` begins.
    pub(crate) fn push_begins(&mut self, replica: ReplicaId, worker: WorkerId) {
        *self.receiving.entry((replica, worker)).or_default() += 1;
    }

    /// It ended, well or not.
    pub(crate) fn push_ends(&mut self, replica: ReplicaId, worker: WorkerId) {
        if let Some(pushes) = self.receiving.get_mut(&(replica, worker)) {
            *pushes -= 1;
            if *pushes == 0 {
                self.receiving.remove(&(replica, worker));
            }
        }
    }

    /// Whether `worker` is pushing `replica`.
    pub(crate) fn is_pushing(&self, replica: ReplicaId, worker: WorkerId) -> bool {
        self.receiving.contains_key(&(replica, worker))
    }

    /// Whether `worker` is pushing anything.
    pub(crate) fn pushes(&self, worker: WorkerId) -> bool {
        self.receiving.keys().any(|(_, pushing)| *pushing == worker)
    }

    /// Records a finite contribution, the first of its replica, or compares it with the first.
    pub(crate) fn record(&mut self, contribution: &Contribution) -> Recorded {
        let Contribution { worker, assignment, digest, result, .. } = contribution;
        match &mut self.counted[assignment.replica.0 as usize] {
            empty @ None => {
                *empty = Some((*worker, digest.clone(), *result));
                Recorded::First
            }
            Some((_, first, before)) if first == digest && same(before, result) => Recorded::Same,
            Some((first, ..)) => Recorded::Differs(*first),
        }
    }

    /// The results, added in replica order. Replicas that are missing add nothing.
    pub(crate) fn summary(&self) -> StepSummary {
        let results = self.counted.iter().flatten().map(|(_, _, result)| result);
        let (mut loss, mut samples, mut top1) = (0.0, 0.0, 0.0);
        for result in results {
            loss += result.loss;
            samples += f64::from(result.samples);
            top1 += f64::from(result.top1);
        }
        StepSummary { loss: loss / self.counted.len() as f64, top1: top1 / samples }
    }
}

fn same(a: &StepResult, b: &StepResult) -> bool {
    (a.loss.to_bits(), a.samples, a.top1) == (b.loss.to_bits(), b.samples, b.top1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hw2_common::ids::GlobalStep;
    use std::time::Duration;

    fn contribution(worker: u64, replica: u32, loss: f64) -> Contribution {
        Contribution {
            worker: WorkerId(worker),
            assignment: Assignment { step: GlobalStep(0), replica: ReplicaId(replica) },
            digest: Digest { gradient: vec![replica], statistics: 7 },
            result: StepResult { loss, samples: 4, top1: 1 + replica },
            bad_images: Vec::new(),
            non_finite: None,
        }
    }

    #[test]
    fn the_first_counts_and_a_second_one_is_compared() {
        let mut barrier = StepBarrier::new(Now(Duration::ZERO), 2);
        assert_eq!(barrier.record(&contribution(1, 1, 0.5)), Recorded::First);
        assert_eq!(barrier.next(), Some(ReplicaId(0)));
        assert_eq!(barrier.record(&contribution(2, 1, 0.5)), Recorded::Same);
        assert_eq!(barrier.record(&contribution(2, 1, 0.25)), Recorded::Differs(WorkerId(1)));
        let mut other = contribution(2, 1, 0.5);
        other.digest.statistics = 8;
        assert_eq!(barrier.record(&other), Recorded::Differs(WorkerId(1)));
        assert_eq!(barrier.record(&contribution(2, 0, 1.5)), Recorded::First);
        assert_eq!(barrier.next(), None);
        assert_eq!(barrier.summary(), StepSummary { loss: 1.0, top1: 0.375 });
    }

    #[test]
    fn losses_are_added_in_replica_order() {
        let losses = [1e16, 1.0, -1e16, 1.0];
        let sum = |order: [u32; 4]| {
            let mut barrier = StepBarrier::new(Now(Duration::ZERO), 4);
            for replica in order {
                barrier.record(&contribution(1, replica, losses[replica as usize]));
            }
            barrier.summary().loss
        };
        assert_eq!(sum([0, 1, 2, 3]), 0.25);
        assert_eq!(sum([3, 1, 0, 2]), 0.25);
    }
}
