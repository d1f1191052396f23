//! Who should hold which replica from the next step on.

use hw2_common::ids::WorkerId;

/// A worker that may hold replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// Who.
    pub(crate) worker: WorkerId,
    /// Contributions of it that counted.
    pub(crate) contributions: u64,
}

/// A holder for every replica: shares differ by at most one, and a replica stays with its worker
/// unless the shares force it away. Those of a worker lie among those of the others, as far as that
/// leaves where they are: contributions are wanted in replica order, and a worker with many in a
/// row would keep the others waiting. With more workers than replicas the rest are spares; when
/// `rotate` is set, those who contributed least get the replicas, since a spare that never ran is
/// no spare.
///
/// # Panics
/// If there is no candidate.
pub(crate) fn balance(
    holders: &[Option<WorkerId>],
    candidates: &[Candidate],
    rotate: bool,
) -> Vec<WorkerId> {
    assert!(!candidates.is_empty(), "somebody must hold the replicas");
    let held = |worker| holders.iter().filter(|holder| **holder == Some(worker)).count();
    let mut order = candidates.to_vec();
    if rotate && candidates.len() > holders.len() {
        order.sort_by_key(|candidate| (candidate.contributions, candidate.worker));
    } else {
        order.sort_by_key(|candidate| (usize::MAX - held(candidate.worker), candidate.worker));
    }
    let (each, extra) = (holders.len() / order.len(), holders.len() % order.len());
    let mut shares: Vec<Quota> = (0..)
        .zip(&order)
        .map(|(place, Candidate { worker, .. })| {
            let share = each + usize::from(place < extra);
            let held = held(*worker);
            Quota { worker: *worker, held, kept: held.min(share), seen: 0, lacks: share }
        })
        .collect();
    let keep = |holder: &Option<WorkerId>| {
        shares.iter_mut().find(|share| Some(share.worker) == *holder)?.keep()
    };
    let kept: Vec<Option<WorkerId>> = holders.iter().map(keep).collect();
    let mut next = 0;
    let mut fill = || {
        let places = (0..shares.len()).map(|place| (next + place) % shares.len());
        let place = places.into_iter().find(|place| shares[*place].lacks > 0);
        let place = place.expect("the shares add up to the replicas");
        shares[place].lacks -= 1;
        next = place + 1;
        shares[place].worker
    };
    kept.into_iter().map(|holder| holder.unwrap_or_else(&mut fill)).collect()
}

/// Of one worker.
struct Quota {
    worker: WorkerId,
    /// Replicas that it holds, that it keeps of those, and that were looked at.
    held: usize,
    kept: usize,
    seen: usize,
    /// Replicas that it still is to get.
    lacks: usize,
}

impl Quota {
    /// The worker, if it keeps the next of what it holds: those that it gives away lie evenly among
    /// the others.
    fn keep(&mut self) -> Option<WorkerId> {
        let before = |seen: usize| (seen * self.kept).div_ceil(self.held);
        let keeps = before(self.seen + 1) > before(self.seen);
        self.seen += 1;
        self.lacks -= usize::from(keeps);
        keeps.then_some(self.worker)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(numbers: &[u64]) -> Vec<WorkerId> {
        numbers.iter().copied().map(WorkerId).collect()
    }

    fn candidates(contributions: &[(u64, u64)]) -> Vec<Candidate> {
        let candidate =
            |&(worker, contributions)| Candidate { worker: WorkerId(worker), contributions };
        contributions.iter().map(candidate).collect()
    }

    #[test]
    fn shares_differ_by_at_most_one_and_holders_keep_what_they_may() {
        let nobody = [None; 5];
        let two = candidates(&[(1, 0), (2, 0)]);
        assert_eq!(balance(&nobody, &two, false), ids(&[1, 2, 1, 2, 1]));
        let held = [1, 2, 1, 2, 1].map(|worker| Some(WorkerId(worker)));
        assert_eq!(balance(&held, &two, false), ids(&[1, 2, 1, 2, 1]));
        let three = candidates(&[(1, 9), (2, 9), (3, 0)]);
        assert_eq!(balance(&held, &three, false), ids(&[1, 2, 1, 2, 3]));
        assert_eq!(balance(&held, &three, true), ids(&[1, 2, 1, 2, 3]));
        let all = [Some(WorkerId(1)); 6];
        assert_eq!(balance(&all, &two, false), ids(&[1, 2, 1, 2, 1, 2]));
        assert_eq!(balance(&all, &three, false), ids(&[1, 2, 3, 1, 2, 3]));
    }

    #[test]
    fn what_a_gone_worker_held_is_spread_over_the_others() {
        let held = [1, 2, 3, 1].map(|worker| Some(WorkerId(worker)));
        let left = candidates(&[(2, 5), (3, 5)]);
        assert_eq!(balance(&held, &left, false), ids(&[2, 2, 3, 3]));
        assert_eq!(balance(&held, &left[1..], false), ids(&[3, 3, 3, 3]));
    }

    #[test]
    fn spares_stay_spares_until_the_leases_rotate() {
        let held = [1, 2].map(|worker| Some(WorkerId(worker)));
        let four = candidates(&[(1, 10), (2, 10), (3, 0), (4, 0)]);
        assert_eq!(balance(&held, &four, false), ids(&[1, 2]));
        assert_eq!(balance(&held, &four, true), ids(&[3, 4]));
        let later = candidates(&[(1, 10), (2, 10), (3, 10), (4, 0)]);
        assert_eq!(balance(&held, &later, true), ids(&[1, 4]));
    }
}
