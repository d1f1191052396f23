//! What has come in of contributions that are spread over several servers.

use std::collections::BTreeMap;

use hw2_common::ids::{Assignment, WorkerId};

use super::step::{Contribution, Digest, StepResult};

/// What one server has received of a contribution, without its tensors.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Share {
    pub(crate) worker: WorkerId,
    pub(crate) assignment: Assignment,
    pub(crate) shard: usize,
    /// Of its part of the gradient, as [`hw2_common::wire::Arrivals::digest`] makes it.
    pub(crate) gradient: u32,
    /// What is not finite, in words; none when all is.
    pub(crate) non_finite: Option<String>,
    /// All that goes to the first server only.
    pub(crate) rest: Option<Rest>,
}

/// What a contribution has beside its gradient.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rest {
    /// Digest of the BN statistics.
    pub(crate) statistics: u32,
    pub(crate) result: StepResult,
    /// Names of images that could not be decoded and were replaced.
    pub(crate) bad_images: Vec<String>,
}

/// Contributions of which something is missing.
#[derive(Clone, Debug)]
pub(crate) struct Shares {
    shards: usize,
    partial: BTreeMap<(WorkerId, Assignment), Vec<Option<Share>>>,
}

impl Shares {
    /// Of so many servers; none yet.
    pub(crate) fn new(shards: usize) -> Self {
        Self { shards, partial: BTreeMap::new() }
    }

    /// Takes a share in; the contribution if that was the last one.
    pub(crate) fn add(&mut self, share: Share) -> Option<Contribution> {
        let key = (share.worker, share.assignment);
        let shares = self.partial.entry(key).or_insert_with(|| vec![None; self.shards]);
        // One that was sent again takes the place of the first.
        let place = share.shard;
        shares[place] = Some(share);
        if shares.contains(&None) {
            return None;
        }
        let shares = self.partial.remove(&key)?.into_iter().flatten();
        Some(join(shares.collect()))
    }

    /// A contribution is not wanted any more.
    pub(crate) fn remove(&mut self, worker: WorkerId, assignment: Assignment) {
        self.partial.remove(&(worker, assignment));
    }

    /// Another step begins: nothing of the last one is wanted.
    pub(crate) fn clear(&mut self) {
        self.partial.clear();
    }
}

/// All shares of one contribution, in the order of the servers.
fn join(mut shares: Vec<Share>) -> Contribution {
    let Rest { statistics, result, bad_images } =
        shares[0].rest.take().expect("the first server was sent the rest");
    let Share { worker, assignment, .. } = shares[0];
    Contribution {
        worker,
        assignment,
        digest: Digest {
            gradient: shares.iter().map(|share| share.gradient).collect(),
            statistics,
        },
        result,
        bad_images,
        non_finite: shares.into_iter().find_map(|share| share.non_finite),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hw2_common::ids::{GlobalStep, ReplicaId};

    fn share(worker: u64, shard: usize) -> Share {
        let result = StepResult { loss: 0.5, samples: 4, top1: 1 };
        let rest = Rest { statistics: 7, result, bad_images: Vec::new() };
        Share {
            worker: WorkerId(worker),
            assignment: Assignment { step: GlobalStep(3), replica: ReplicaId(0) },
            shard,
            gradient: 10 + shard as u32,
            non_finite: (shard == 2).then(|| "gradient of dense1".into()),
            rest: (shard == 0).then_some(rest),
        }
    }

    #[test]
    fn a_contribution_is_whole_when_every_server_has_its_share() {
        let mut shares = Shares::new(3);
        assert_eq!(shares.add(share(1, 2)), None);
        assert_eq!(shares.add(share(2, 1)), None, "nobody's else counts");
        assert_eq!(shares.add(share(1, 0)), None);
        assert_eq!(shares.add(share(1, 0)), None, "sent again");
        let whole = shares.add(share(1, 1)).unwrap();
        assert_eq!(whole.digest, Digest { gradient: vec![10, 11, 12], statistics: 7 });
        assert_eq!(whole.non_finite.as_deref(), Some("gradient of dense1"));
        assert_eq!(shares.partial.len(), 1, "that of the other worker");
    }
}
