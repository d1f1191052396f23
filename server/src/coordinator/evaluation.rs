//! The barrier of an evaluation: blocks leased, counts gathered, summed in block order.

use hw2_common::ids::{BlockId, GlobalStep, WorkerId};
use hw2_common::state::Evaluation;

use super::leases::Leases;
use super::step::Recorded;
use super::{Now, Refusal};

/// Above the cross-entropy of any finite f32 logits.
const LOSS_MAX: f64 = 1e39;

/// A worker's counts of one block.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct BlockReport {
    pub(crate) worker: WorkerId,
    pub(crate) step: GlobalStep,
    pub(crate) block: BlockId,
    pub(crate) counts: Counts,
    /// Names of images that could not be decoded and were replaced.
    pub(crate) bad_images: Vec<String>,
}

/// What was counted over one block.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Counts {
    pub(crate) samples: u32,
    pub(crate) top1: u32,
    pub(crate) top5: u32,
    /// Sum of the cross-entropies, in index order.
    pub(crate) loss_sum: f64,
}

/// What is in of an evaluation.
#[derive(Clone, Debug)]
pub(crate) struct EvaluationBarrier {
    /// When it could begin.
    pub(crate) began: Now,
    /// The blocks.
    pub(crate) leases: Leases,
    counted: Vec<Option<(WorkerId, Counts)>>,
}

impl Counts {
    /// Checks counts of a block of `samples` images.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] names the value that cannot be.
    pub(crate) fn check(&self, samples: u32) -> Result<(), Refusal> {
        let Self { samples: counted, top1, top5, loss_sum } = *self;
        if counted != samples {
            return Err(Refusal::Invalid(format!("{counted} samples in a block of {samples}")));
        }
        if !(top1 <= top5 && top5 <= samples) {
            return Err(Refusal::Invalid(format!(
                "top1 = {top1}, top5 = {top5} of {samples} samples: they must not fall"
            )));
        }
        // The total over all blocks must be finite.
        if loss_sum.is_nan() || loss_sum.abs() > f64::from(samples) * LOSS_MAX {
            return Err(Refusal::Invalid(format!(
                "loss_sum = {loss_sum:e} over {samples} samples: at most {LOSS_MAX:e} each"
            )));
        }
        Ok(())
    }

    fn same(&self, other: &Self) -> bool {
        self == other && self.loss_sum.to_bits() == other.loss_sum.to_bits()
    }
}

impl EvaluationBarrier {
    /// Nothing is in.
    pub(crate) fn new(began: Now, blocks: u32) -> Self {
        Self { began, leases: Leases::new(blocks), counted: vec![None; blocks as usize] }
    }

    /// How many blocks a worker gets at once when `workers` share what is left: half of its share,
    /// so that the last blocks are small change for whoever is done first.
    pub(crate) fn share(&self, workers: usize) -> usize {
        self.leases.orphans().len().div_ceil(2 * workers.max(1))
    }

    /// Records the counts of a block, or compares them with the first.
    pub(crate) fn record(&mut self, report: &BlockReport) -> Recorded {
        match &mut self.counted[report.block.0 as usize] {
            empty @ None => {
                *empty = Some((report.worker, report.counts));
                self.leases.finish(report.block.0);
                Recorded::First
            }
            Some((_, counts)) if counts.same(&report.counts) => Recorded::Same,
            Some((first, _)) => Recorded::Differs(*first),
        }
    }

    /// The evaluation of `step`, once every block is in.
    pub(crate) fn total(&self, step: GlobalStep) -> Option<Evaluation> {
        let mut total = Evaluation { step, samples: 0, top1: 0, top5: 0, loss: 0.0 };
        for counted in &self.counted {
            let (_, Counts { samples, top1, top5, loss_sum }) = counted.as_ref()?;
            total.samples += samples;
            total.top1 += top1;
            total.top5 += top5;
            total.loss += loss_sum;
        }
        total.loss /= f64::from(total.samples);
        Some(total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn report(worker: u64, block: u32, top1: u32, loss_sum: f64) -> BlockReport {
        let counts = Counts { samples: 10, top1, top5: 9, loss_sum };
        BlockReport {
            worker: WorkerId(worker),
            step: GlobalStep(3),
            block: BlockId(block),
            counts,
            bad_images: Vec::new(),
        }
    }

    #[test]
    fn each_block_counts_once_and_sums_are_in_block_order() {
        let losses = [1e16, 1.0, -1e16];
        let evaluate = |order: [u32; 3]| {
            let mut barrier = EvaluationBarrier::new(Now(Duration::ZERO), 3);
            for block in order {
                assert_eq!(barrier.total(GlobalStep(3)), None);
                let report = report(1, block, 5, losses[block as usize]);
                assert_eq!(barrier.record(&report), Recorded::First);
                assert_eq!(barrier.record(&report), Recorded::Same);
            }
            barrier.total(GlobalStep(3)).unwrap()
        };
        let expected =
            Evaluation { step: GlobalStep(3), samples: 30, top1: 15, top5: 27, loss: 0.0 };
        assert_eq!(evaluate([0, 1, 2]), expected);
        assert_eq!(evaluate([2, 0, 1]), expected);
    }

    #[test]
    fn a_different_second_report_names_the_first_worker() {
        let mut barrier = EvaluationBarrier::new(Now(Duration::ZERO), 1);
        barrier.record(&report(1, 0, 5, 1.0));
        assert_eq!(barrier.record(&report(2, 0, 6, 1.0)), Recorded::Differs(WorkerId(1)));
        assert_eq!(barrier.record(&report(2, 0, 5, 2.0)), Recorded::Differs(WorkerId(1)));
    }

    #[test]
    fn counts_that_cannot_be_are_invalid() {
        let good = Counts { samples: 10, top1: 3, top5: 7, loss_sum: 12.5 };
        good.check(10).unwrap();
        for bad in [
            Counts { samples: 9, ..good },
            Counts { top1: 8, ..good },
            Counts { top5: 11, ..good },
            Counts { loss_sum: f64::NAN, ..good },
            Counts { loss_sum: f64::INFINITY, ..good },
        ] {
            assert!(matches!(bad.check(10), Err(Refusal::Invalid(_))), "{bad:?}");
        }
    }

    #[test]
    fn shares_become_smaller_towards_the_end() {
        let mut barrier = EvaluationBarrier::new(Now(Duration::ZERO), 16);
        let mut shares = Vec::new();
        while barrier.share(2) > 0 {
            let share = barrier.share(2);
            barrier.leases.grant(WorkerId(1), share);
            shares.push(share);
        }
        assert_eq!(shares, [4, 3, 3, 2, 1, 1, 1, 1]);
    }
}
