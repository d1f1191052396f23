//! Events of a worker that asks what to do, or for credit: answered now or later.

use hw2_common::ids::{Assignment, BlockId, GlobalStep, ReplicaId, WorkerId};

use super::leases::Granted;
use super::step::StepBarrier;
use super::workers::not_a_member;
use super::{
    Asking, Coordinator, Credit, Directive, Effect, Ending, Leased, Level, Now, Phase, Question,
    Refusal, Waiter,
};

/// Whether what a worker is `pushing` is wanted by `barrier`, which is that of `step`, and not in
/// yet.
pub(super) fn is_awaited(
    step: GlobalStep,
    barrier: &StepBarrier,
    pushing: Option<Assignment>,
) -> bool {
    pushing.is_some_and(|pushing| pushing.step == step && !barrier.has(pushing.replica))
}

impl Coordinator {
    /// A worker wants to know what to do, once what it is `pushing` is in. [`Effect::Direct`]
    /// answers.
    ///
    /// # Errors
    /// What it is pushing cannot be an assignment of this run, or not yet.
    pub(crate) fn next(
        &mut self,
        now: Now,
        worker: WorkerId,
        pushing: Option<Assignment>,
        waiter: Waiter,
    ) -> Result<(), Refusal> {
        pushing.map_or(Ok(()), |assignment| self.check_assignment(assignment))?;
        if !self.members.saw(now, worker) {
            let directive = Directive::Rejoin(not_a_member(worker));
            self.effects.push(Effect::Direct(waiter, directive));
            return Ok(());
        }
        if let Some(member) = self.members.get_mut(worker) {
            member.ready = true;
        }
        let asking = Asking { waiter, since: now, pushing };
        if let Some(Asking { waiter: older, .. }) = self.asking.insert(worker, asking) {
            let directive = Directive::Wait("this worker asks again elsewhere".into());
            self.effects.push(Effect::Direct(older, directive));
        }
        self.serve(now);
        Ok(())
    }

    /// A worker wants to push a contribution for which it has no credit. [`Effect::GiveCredit`]
    /// answers.
    ///
    /// # Errors
    /// The assignment cannot be one of this run, or not yet.
    pub(crate) fn credit(
        &mut self,
        now: Now,
        worker: WorkerId,
        assignment: Assignment,
        computing: bool,
        waiter: Waiter,
    ) -> Result<(), Refusal> {
        self.check_assignment(assignment)?;
        if !self.members.saw(now, worker) {
            let credit = Credit::Drop(not_a_member(worker));
            self.effects.push(Effect::GiveCredit(waiter, credit));
            return Ok(());
        }
        let question = Question { waiter, asked: now, assignment, computing };
        if let Some(older) = self.credits.insert(worker, question) {
            let credit = Credit::Wait("this worker asks again elsewhere".into());
            self.effects.push(Effect::GiveCredit(older.waiter, credit));
        }
        self.serve(now);
        Ok(())
    }

    /// The connection of a call that waits is gone.
    pub(crate) fn forget(&mut self, waiter: Waiter) {
        self.asking.retain(|_, asking| asking.waiter != waiter);
        self.credits.retain(|_, question| question.waiter != waiter);
    }

    /// Answers every call that can be answered now.
    pub(super) fn serve(&mut self, now: Now) {
        let asking: Vec<WorkerId> = self.asking.keys().copied().collect();
        for worker in asking {
            if let Some(directive) = self.directive(now, worker)
                && let Some(Asking { waiter, .. }) = self.asking.remove(&worker)
            {
                if let (Directive::Stop { .. }, Some(member)) =
                    (&directive, self.members.get_mut(worker))
                {
                    member.stopped = Some(now);
                }
                self.effects.push(Effect::Direct(waiter, directive));
            }
        }
        let questions: Vec<(WorkerId, Question)> =
            self.credits.iter().map(|(worker, question)| (*worker, *question)).collect();
        for (worker, question) in questions {
            if let Some(credit) = self.credit_now(now, worker, question) {
                self.credits.remove(&worker);
                let Question { waiter, asked, computing, .. } = question;
                // It waited for others until now: what it owes is not overdue.
                if asked != now && !computing {
                    self.members.progressed(now, worker);
                }
                self.effects.push(Effect::GiveCredit(waiter, credit));
            }
        }
    }

    fn directive(&mut self, now: Now, worker: WorkerId) -> Option<Directive> {
        let step = self.progress.global_step;
        match &mut self.phase {
            // Whoever is told that it is over does not come back: not before the state is safe.
            Phase::Ended(Ending::Finished, _) if self.saves.are_pending() => None,
            Phase::Ended(ending, reason) => Some(Directive::Stop {
                finished: *ending == Ending::Finished && self.saves.failure.is_none(),
                reason: reason.clone(),
            }),
            Phase::Saving | Phase::Committing { .. } => None,
            Phase::Evaluating(barrier) => {
                let mut granted = Granted::default();
                if barrier.leases.owed_by(worker).is_empty() {
                    granted = barrier.leases.grant(worker, barrier.share(self.members.len()));
                }
                let blocks = barrier.leases.owed_by(worker);
                let blocks: Vec<BlockId> = blocks.into_iter().map(BlockId).collect();
                self.granted(now, worker, granted);
                (!blocks.is_empty()).then_some(Directive::Evaluate { step, blocks })
            }
            Phase::Training(barrier) => {
                let pushing = self.asking.get(&worker).and_then(|asking| asking.pushing);
                if is_awaited(step, barrier, pushing) {
                    return None;
                }
                self.take_orphans(now, worker);
                let assignments = self.to_compute(worker);
                (!assignments.is_empty()).then_some(Directive::Run { step, assignments })
            }
        }
    }

    /// What `worker` owes of the current step and is not pushing already, in replica order.
    fn to_compute(&self, worker: WorkerId) -> Vec<Leased> {
        let Phase::Training(barrier) = &self.phase else { return Vec::new() };
        let Some(next) = barrier.next() else { return Vec::new() };
        let owed = self.replicas.owed_by(worker).into_iter().map(ReplicaId);
        owed.filter(|replica| !barrier.is_pushing(*replica, worker))
            .map(|replica| Leased { replica, credit: self.window.admits(next, replica) })
            .collect()
    }

    /// Gives `worker` replicas that nobody holds: up to its fair share, and one at least if it has
    /// nothing else to do, so that no replica waits while a worker does.
    fn take_orphans(&mut self, now: Now, worker: WorkerId) {
        let Phase::Training(barrier) = &self.phase else { return };
        let idle = self.to_compute(worker).is_empty() && !barrier.pushes(worker);
        let fair = (self.job.config.replicas as usize).div_ceil(self.members.len().max(1));
        let room = fair.saturating_sub(self.replicas.held_by(worker).len());
        let granted = self.replicas.grant(worker, room.max(usize::from(idle)));
        self.granted(now, worker, granted);
        if granted.releases > 0 {
            let name = self.members.name(worker);
            let count = granted.releases;
            self.notice(Level::Info, format!("{name} takes {count} replicas that were lost"));
        }
    }

    /// `worker` has work that it did not have.
    fn granted(&mut self, now: Now, worker: WorkerId, granted: Granted) {
        self.releases += granted.releases;
        if granted.units > 0 {
            self.members.progressed(now, worker);
        }
    }

    fn credit_now(&mut self, now: Now, worker: WorkerId, question: Question) -> Option<Credit> {
        let Question { assignment, computing, .. } = question;
        let Phase::Training(barrier) = &self.phase else {
            return Some(Credit::Drop("no contribution is wanted now: ask what is".into()));
        };
        let Assignment { step, replica } = assignment;
        if step < self.progress.global_step || barrier.has(replica) {
            return Some(Credit::Drop(format!("{assignment} is there already")));
        }
        let next = barrier.next().expect("a replica that is missing is at least the next");
        if self.window.admits(next, replica) {
            return Some(Credit::Push);
        }
        if computing {
            // It may yet be wanted by the time it is made.
            return None;
        }
        // A lower replica that only this worker can be asked for: it gives the higher one back.
        let mine = |(lower, holder): &(u32, Option<WorkerId>)| {
            let free = holder.is_none_or(|holder| holder == worker);
            free && !barrier.is_pushing(ReplicaId(*lower), worker)
        };
        let (lower, holder) =
            self.replicas.open().take_while(|(unit, _)| *unit < replica.0).find(mine)?;
        self.replicas.give_back(replica.0, worker);
        let releases = u64::from(self.replicas.assign(lower, worker));
        self.granted(now, worker, Granted { units: usize::from(holder.is_none()), releases });
        Some(Credit::Drop(format!("{replica} waits for {}: compute that first", ReplicaId(lower))))
    }
}
