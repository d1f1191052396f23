//! Events that bring results: pushes and reports of evaluated blocks.

use hw2_common::config::NonFinite;
use hw2_common::ids::{Assignment, WorkerId};

use super::step::{Recorded, StepBarrier};
use super::workers::not_a_member;
use super::{
    BlockReport, Contribution, Coordinator, Effect, Level, Now, Order, Phase, Refusal, Replay,
    Rest, Share, samples,
};

/// Longest name of an image that a worker may send, in bytes.
const IMAGE_NAME_BYTES_MAX: usize = 4096;

/// What to do with the chunks of a push that begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// Keep them and call [`Coordinator::receive`] or [`Coordinator::push_failed`].
    Receive,
    /// Read on, keep nothing, and answer [`Outcome::Dropped`].
    Discard,
}

/// What became of a contribution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// In; it counts when every server has its share.
    Received,
    /// The first of its replica: its tensors go into the aggregate.
    Counted,
    /// The same bits as the first.
    Duplicate,
    /// Not wanted any more.
    Dropped,
}

impl Coordinator {
    /// A push begins. A contribution is taken from anyone, lease or not: the first one counts.
    ///
    /// # Errors
    /// The assignment cannot be one of this run, or not yet; or the worker never joined.
    pub(crate) fn admit(
        &mut self,
        now: Now,
        worker: WorkerId,
        assignment: Assignment,
    ) -> Result<Admission, Refusal> {
        self.check_known(worker)?;
        self.check_assignment(assignment)?;
        self.members.saw(now, worker);
        let Assignment { step, replica } = assignment;
        if step < self.progress.global_step {
            return Ok(Admission::Discard);
        }
        match &mut self.phase {
            Phase::Ended(..) => Ok(Admission::Discard),
            Phase::Committing { .. } => Ok(Admission::Receive),
            Phase::Training(barrier) => {
                let admits = |next| self.window.admits(next, replica);
                if !barrier.next().is_some_and(admits) {
                    return Ok(Admission::Discard);
                }
                barrier.push_begins(replica, worker);
                Ok(Admission::Receive)
            }
            Phase::Evaluating(_) | Phase::Saving => Err(Refusal::NotNow(format!(
                "{step} is not leased before its evaluation is over: ask first"
            ))),
        }
    }

    /// A push ended without a contribution.
    pub(crate) fn push_failed(&mut self, now: Now, worker: WorkerId, assignment: Assignment) {
        self.push_ends(now, worker, assignment);
        self.serve(now);
    }

    /// A push to one of the servers is complete.
    ///
    /// # Errors
    /// Its result cannot be: nothing is changed.
    pub(crate) fn receive(&mut self, now: Now, share: Share) -> Result<Outcome, Refusal> {
        let (worker, assignment) = (share.worker, share.assignment);
        if let Err(refusal) = self.check_share(&share) {
            self.effects.push(Effect::Order(Order::Forget(worker, assignment)));
            self.push_ends(now, worker, assignment);
            self.serve(now);
            return Err(refusal);
        }
        match self.shares.add(share) {
            Some(contribution) => Ok(self.contribute(now, contribution)),
            None if assignment.step < self.progress.global_step => {
                self.shares.remove(worker, assignment);
                self.effects.push(Effect::Order(Order::Forget(worker, assignment)));
                self.push_ends(now, worker, assignment);
                self.serve(now);
                Ok(Outcome::Dropped)
            }
            None => {
                // Its worker goes on pushing.
                if let Some(barrier) = self.barrier_of(assignment) {
                    barrier.push_ends(assignment.replica, worker);
                }
                self.members.saw(now, worker);
                Ok(Outcome::Received)
            }
        }
    }

    fn contribute(&mut self, now: Now, contribution: Contribution) -> Outcome {
        let Contribution { worker, assignment, .. } = contribution;
        self.push_ends(now, worker, assignment);
        self.members.saw(now, worker);
        let outcome = self.count(now, &contribution);
        if outcome != Outcome::Counted {
            self.effects.push(Effect::Order(Order::Forget(worker, assignment)));
        }
        self.serve(now);
        outcome
    }

    fn count(&mut self, now: Now, contribution: &Contribution) -> Outcome {
        let Assignment { step, replica } = contribution.assignment;
        if step != self.progress.global_step {
            return Outcome::Dropped;
        }
        let (Phase::Training(barrier) | Phase::Committing { barrier, skipped: false, .. }) =
            &mut self.phase
        else {
            return Outcome::Dropped;
        };
        if contribution.non_finite.is_some() && !barrier.has(replica) {
            self.not_finite(now, contribution);
            return Outcome::Dropped;
        }
        match barrier.record(contribution) {
            Recorded::Same => Outcome::Duplicate,
            Recorded::Differs(first) => {
                self.differs(first, contribution.worker, &contribution.assignment.to_string());
                Outcome::Dropped
            }
            Recorded::First => {
                let next = barrier.next();
                self.effects.push(Effect::Order(Order::Count(
                    contribution.worker,
                    contribution.assignment,
                )));
                self.replicas.finish(replica.0);
                self.fix_numeric_kind(contribution.worker);
                self.credit_contributor(now, contribution.worker);
                self.note_bad_images(contribution.worker, &contribution.bad_images);
                if next.is_none() && matches!(self.phase, Phase::Training(_)) {
                    self.commit(now, true);
                }
                Outcome::Counted
            }
        }
    }

    fn credit_contributor(&mut self, now: Now, worker: WorkerId) {
        self.members.progressed(now, worker);
        if let Some(member) = self.members.get_mut(worker) {
            member.contributions += 1;
        }
    }

    fn commit(&mut self, now: Now, makes_update: bool) {
        let phase = std::mem::replace(&mut self.phase, Phase::Saving);
        let Phase::Training(barrier) = phase else { panic!("a step commits from training") };
        let made = vec![false; self.shards];
        self.phase = Phase::Committing { barrier, skipped: !makes_update, made, since: now };
        self.effects
            .push(Effect::Order(Order::Commit { step: self.progress.global_step, makes_update }));
    }

    fn not_finite(&mut self, now: Now, contribution: &Contribution) {
        let Contribution { worker, assignment, .. } = contribution;
        if !matches!(self.phase, Phase::Training(_)) {
            return;
        }
        let what = contribution.non_finite.clone().unwrap_or_default();
        let worker = self.members.name(*worker);
        let samples = samples::of(&self.job, *assignment);
        let text = format!("{assignment} from {worker}: {what}; samples {samples:?}");
        self.effects.push(Effect::KeepReplay(Replay {
            assignment: *assignment,
            worker,
            what,
            samples,
            progress: self.progress.clone(),
        }));
        match self.job.config.on_non_finite {
            NonFinite::Stop => self.fail(text),
            NonFinite::Skip => {
                self.notice(Level::Error, format!("{text}; the step makes no update"));
                self.commit(now, false);
            }
        }
    }

    /// Two workers disagree: one of them, or its numeric kind, is wrong, and the run cannot tell
    /// which.
    fn differs(&mut self, first: WorkerId, second: WorkerId, what: &str) {
        let (first, second) = (self.members.name(first), self.members.name(second));
        let text = format!("{what}: {second} computed other bits than {first}");
        match self.expected.allow_mixed {
            true => self.notice(Level::Warn, format!("{text}; the first ones count")),
            false => self.fail(format!("{text}; one of the two machines must not be trusted")),
        }
    }

    /// A worker counted a block.
    ///
    /// # Errors
    /// The counts cannot be, or are of a later step; or the worker never joined.
    pub(crate) fn report(&mut self, now: Now, report: BlockReport) -> Result<(), Refusal> {
        self.check_known(report.worker)?;
        let step = self.progress.global_step;
        if report.step > step {
            return Err(Refusal::NotNow(format!("{} is ahead of {step}", report.step)));
        }
        let blocks = self.job.eval_blocks();
        if report.block.0 >= blocks {
            return Err(Refusal::Invalid(format!("{} of {blocks} blocks", report.block)));
        }
        report.counts.check(self.job.eval_range(report.block).len() as u32)?;
        self.check_bad_images(&report.bad_images)?;
        self.members.saw(now, report.worker);
        if let Phase::Evaluating(barrier) = &mut self.phase
            && report.step == step
        {
            match barrier.record(&report) {
                Recorded::Same => {}
                Recorded::Differs(first) => {
                    let what = format!("{} of the evaluation of {step}", report.block);
                    self.differs(first, report.worker, &what);
                }
                Recorded::First => {
                    let total = barrier.total(step);
                    self.fix_numeric_kind(report.worker);
                    self.members.progressed(now, report.worker);
                    self.note_bad_images(report.worker, &report.bad_images);
                    if let (Some(total), Phase::Evaluating(_)) = (total, &self.phase) {
                        self.evaluated(now, total);
                    }
                }
            }
            self.serve(now);
        }
        Ok(())
    }

    /// Names each image once, and ends the run when they are too many.
    fn note_bad_images(&mut self, worker: WorkerId, names: &[String]) {
        for name in names {
            if self.bad_images.insert(name.clone()) {
                let text = format!(
                    "image {name:?} cannot be decoded (says {}); the next one takes its place",
                    self.members.name(worker)
                );
                self.notice(Level::Warn, text);
            }
        }
        let all = f64::from(self.job.dataset.train) + f64::from(self.job.dataset.val);
        let max = self.job.config.images.bad_images_max;
        let allowed = (max * all).floor();
        let bad = self.bad_images.len();
        if bad as f64 > allowed {
            self.fail(format!(
                "{bad} of {all} images cannot be decoded, images.bad_images_max = {max} allows \
                 {allowed}: repair the dataset or raise the limit"
            ));
        }
    }

    fn push_ends(&mut self, now: Now, worker: WorkerId, assignment: Assignment) {
        if let Some(barrier) = self.barrier_of(assignment) {
            barrier.push_ends(assignment.replica, worker);
        }
        if let Some(asking) = self.asking.get_mut(&worker)
            && asking.pushing == Some(assignment)
        {
            // Only now does it wait.
            (asking.pushing, asking.since) = (None, now);
        }
    }

    /// Of the step under way, if `assignment` is of that.
    fn barrier_of(&mut self, assignment: Assignment) -> Option<&mut StepBarrier> {
        match &mut self.phase {
            Phase::Training(barrier) if assignment.step == self.progress.global_step => {
                Some(barrier)
            }
            _ => None,
        }
    }

    /// Whether the results of `worker` may count.
    fn check_known(&self, worker: WorkerId) -> Result<(), Refusal> {
        match self.members.numeric_kind(worker) {
            Some(kind) => self.expected.check_numeric_kind(kind),
            None => Err(Refusal::Rejoin(not_a_member(worker))),
        }
    }

    pub(super) fn check_assignment(&self, assignment: Assignment) -> Result<(), Refusal> {
        let replicas = self.job.config.replicas;
        if assignment.replica.0 >= replicas {
            return Err(Refusal::Invalid(format!("{} of {replicas}", assignment.replica)));
        }
        let step = self.progress.global_step;
        match assignment.step <= step {
            true => Ok(()),
            false => Err(Refusal::NotNow(format!("{} is ahead of {step}", assignment.step))),
        }
    }

    fn check_share(&self, share: &Share) -> Result<(), Refusal> {
        self.check_known(share.worker)?;
        self.check_assignment(share.assignment)?;
        let Some(Rest { result, bad_images, .. }) = &share.rest else { return Ok(()) };
        self.check_bad_images(bad_images)?;
        let batch_size = self.job.config.batch_size;
        if result.samples != batch_size || result.top1 > batch_size {
            return Err(Refusal::Invalid(format!(
                "{} of {} samples are right in a batch of {batch_size}",
                result.top1, result.samples
            )));
        }
        Ok(())
    }

    fn check_bad_images(&self, names: &[String]) -> Result<(), Refusal> {
        let most = self.job.dataset.train.max(self.job.dataset.val) as usize;
        let longest = names.iter().map(String::len).max().unwrap_or(0);
        match names.len() <= most && longest <= IMAGE_NAME_BYTES_MAX {
            true => Ok(()),
            false => Err(Refusal::Invalid(format!(
                "{} names of bad images, the longest of {longest} bytes",
                names.len()
            ))),
        }
    }
}
