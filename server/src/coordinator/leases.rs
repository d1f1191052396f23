//! Who holds which unit of work: replicas of a step, or blocks of an evaluation.

use hw2_common::ids::WorkerId;

/// The leases of units 0 to n - 1. A lease outlives the step: its worker gets the same unit again.
#[derive(Clone, Debug, Default)]
pub(crate) struct Leases {
    units: Vec<Unit>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Unit {
    holder: Option<WorkerId>,
    /// Who held it before and lost it.
    lost_by: Option<WorkerId>,
    /// Whether this step's work on it is in.
    done: bool,
}

/// What [`Leases::grant`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Granted {
    /// Units that got a holder.
    pub(crate) units: usize,
    /// Those of them that another worker had lost.
    pub(crate) releases: u64,
}

impl Leases {
    /// `count` units that nobody holds.
    pub(crate) fn new(count: u32) -> Self {
        Self { units: vec![Unit::default(); count as usize] }
    }

    /// Nothing is done yet of a new step; the leases stay.
    pub(crate) fn begin(&mut self) {
        self.units.iter_mut().for_each(|unit| unit.done = false);
    }

    /// The work on `unit` is in, whoever did it.
    pub(crate) fn finish(&mut self, unit: u32) {
        self.units[unit as usize].done = true;
    }

    /// The holder of each unit.
    pub(crate) fn holders(&self) -> impl Iterator<Item = Option<WorkerId>> + '_ {
        self.units.iter().map(|unit| unit.holder)
    }

    /// Units that `worker` holds, in order.
    pub(crate) fn held_by(&self, worker: WorkerId) -> Vec<u32> {
        self.select(|unit| unit.holder == Some(worker))
    }

    /// Units that `worker` holds and whose work is not in, in order.
    pub(crate) fn owed_by(&self, worker: WorkerId) -> Vec<u32> {
        self.select(|unit| unit.holder == Some(worker) && !unit.done)
    }

    /// Units whose work is not in, with their holders, in order.
    pub(crate) fn open(&self) -> impl Iterator<Item = (u32, Option<WorkerId>)> + '_ {
        let numbered = (0..).zip(&self.units);
        numbered.filter(|(_, unit)| !unit.done).map(|(number, unit)| (number, unit.holder))
    }

    /// Units whose work is not in and that nobody holds, in order.
    pub(crate) fn orphans(&self) -> Vec<u32> {
        self.select(|unit| unit.holder.is_none() && !unit.done)
    }

    fn select(&self, wanted: impl Fn(&Unit) -> bool) -> Vec<u32> {
        let numbered = (0..).zip(&self.units);
        numbered.filter(|(_, unit)| wanted(unit)).map(|(number, _)| number).collect()
    }

    /// Gives `worker` `count` orphans, which lie evenly among the others, the first one too.
    pub(crate) fn grant(&mut self, worker: WorkerId, count: usize) -> Granted {
        let mut granted = Granted::default();
        let orphans = self.orphans();
        let count = count.min(orphans.len());
        for unit in (0..count).map(|place| orphans[place * orphans.len() / count]) {
            granted.units += 1;
            granted.releases += u64::from(self.assign(unit, worker));
        }
        granted
    }

    /// Makes `worker` the holder of `unit`; whether another worker had lost it.
    pub(crate) fn assign(&mut self, unit: u32, worker: WorkerId) -> bool {
        let unit = &mut self.units[unit as usize];
        unit.holder = Some(worker);
        unit.lost_by.take().is_some_and(|before| before != worker)
    }

    /// Takes every lease of `worker` away; whether there was one.
    pub(crate) fn revoke(&mut self, worker: WorkerId) -> bool {
        let units = self.units.iter_mut().filter(|unit| unit.holder == Some(worker));
        units.map(|unit| unit.lose(worker)).count() > 0
    }

    /// `worker` gives `unit` back, if it holds it.
    pub(crate) fn give_back(&mut self, unit: u32, worker: WorkerId) {
        let unit = &mut self.units[unit as usize];
        if unit.holder == Some(worker) {
            unit.lose(worker);
        }
    }

    /// Makes `holders` the holders of all units; how many of these another worker had lost.
    pub(crate) fn rebalance(&mut self, holders: &[WorkerId]) -> u64 {
        assert_eq!(holders.len(), self.units.len(), "a holder for every unit");
        let assign = |(unit, holder): (u32, &WorkerId)| u64::from(self.assign(unit, *holder));
        (0..).zip(holders).map(assign).sum()
    }
}

impl Unit {
    fn lose(&mut self, worker: WorkerId) {
        self.holder = None;
        self.lost_by = Some(worker);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: WorkerId = WorkerId(1);
    const B: WorkerId = WorkerId(2);

    #[test]
    fn a_lease_lasts_over_steps_until_it_is_lost() {
        let mut leases = Leases::new(3);
        assert_eq!(leases.grant(A, 2), Granted { units: 2, releases: 0 });
        assert_eq!(leases.grant(B, 2), Granted { units: 1, releases: 0 });
        leases.finish(0);
        assert_eq!(leases.owed_by(A), [1]);
        assert_eq!(leases.held_by(A), [0, 1]);
        leases.begin();
        assert_eq!(leases.owed_by(A), [0, 1]);
        assert!(leases.revoke(A));
        assert!(!leases.revoke(A));
        assert_eq!(leases.orphans(), [0, 1]);
        assert_eq!(leases.open().collect::<Vec<_>>(), [(0, None), (1, None), (2, Some(B))]);
    }

    #[test]
    fn only_what_another_worker_lost_counts_as_a_release() {
        let mut leases = Leases::new(3);
        leases.grant(A, 3);
        leases.revoke(A);
        assert_eq!(leases.grant(A, 1), Granted { units: 1, releases: 0 });
        assert_eq!(leases.grant(B, 9), Granted { units: 2, releases: 2 });
        leases.revoke(B);
        assert_eq!(leases.rebalance(&[A, A, B]), 1);
    }

    #[test]
    fn work_that_is_in_is_no_orphan_but_its_lease_can_be_lost() {
        let mut leases = Leases::new(2);
        leases.grant(A, 2);
        leases.finish(0);
        leases.revoke(A);
        assert_eq!(leases.orphans(), [1]);
        leases.finish(1);
        assert_eq!(leases.open().count(), 0);
        leases.begin();
        assert_eq!(leases.orphans(), [0, 1]);
    }

    #[test]
    fn only_the_holder_gives_a_unit_back() {
        let mut leases = Leases::new(1);
        leases.grant(A, 1);
        leases.give_back(0, B);
        assert_eq!(leases.holders().collect::<Vec<_>>(), [Some(A)]);
        leases.give_back(0, A);
        assert_eq!(leases.orphans(), [0]);
    }
}
