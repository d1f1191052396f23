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
/// unless the shares force it away. With more workers than replicas the rest are spares; when
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
    let load = |worker| holders.iter().filter(|holder| **holder == Some(worker)).count();
    let mut order = candidates.to_vec();
    if rotate && candidates.len() > holders.len() {
        order.sort_by_key(|candidate| (candidate.contributions, candidate.worker));
    } else {
        order.sort_by_key(|candidate| (usize::MAX - load(candidate.worker), candidate.worker));
    }
    let (each, extra) = (holders.len() / order.len(), holders.len() % order.len());
    let mut shares: Vec<(WorkerId, usize)> = (0..)
        .zip(&order)
        .map(|(place, candidate)| (candidate.worker, each + usize::from(place < extra)))
        .collect();

    let mut take = |wanted: Option<WorkerId>| {
        let fits = |(worker, left): &&mut (WorkerId, usize)| {
            *left > 0 && wanted.is_none_or(|wanted| wanted == *worker)
        };
        let (worker, left) = shares.iter_mut().find(fits)?;
        *left -= 1;
        Some(*worker)
    };
    let kept: Vec<Option<WorkerId>> =
        holders.iter().map(|holder| holder.and_then(|worker| take(Some(worker)))).collect();
    let filled = kept.into_iter().map(|holder| holder.or_else(|| take(None)));
    filled.map(|holder| holder.expect("the shares add up to the replicas")).collect()
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
        assert_eq!(balance(&nobody, &two, false), ids(&[1, 1, 1, 2, 2]));
        let held = [1, 2, 1, 2, 1].map(|worker| Some(WorkerId(worker)));
        assert_eq!(balance(&held, &two, false), ids(&[1, 2, 1, 2, 1]));
        let three = candidates(&[(1, 9), (2, 9), (3, 0)]);
        assert_eq!(balance(&held, &three, false), ids(&[1, 2, 1, 2, 3]));
        assert_eq!(balance(&held, &three, true), ids(&[1, 2, 1, 2, 3]));
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
