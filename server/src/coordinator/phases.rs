//! How a run moves on: from the evaluation to steps, updates, checkpoints, and to its end.

use hw2_common::state::Evaluation;

use super::evaluation::EvaluationBarrier;
use super::step::StepBarrier;
use super::{Coordinator, Effect, Ending, Level, Now, Order, Phase, Update, balance, plateau};
use crate::curve::Line;

impl Coordinator {
    /// Whether [`Self::update_made`] may be called for `shard`.
    pub(crate) fn awaits_update_of(&self, shard: usize) -> bool {
        match &self.phase {
            Phase::Committing { made, .. } => !made[shard],
            // Ordered before it failed.
            Phase::Ended(Ending::Failed, _) => true,
            _ => false,
        }
    }

    /// The update of [`Order::Commit`] is made by `shard`.
    pub(crate) fn update_made(&mut self, now: Now, shard: usize) {
        let phase = std::mem::replace(&mut self.phase, Phase::Saving);
        let Phase::Committing { barrier, skipped, mut made, since } = phase else {
            // The run failed while the update was being made, and nothing of it will be saved.
            assert!(matches!(phase, Phase::Ended(Ending::Failed, _)), "{phase:?} has no commit");
            self.phase = phase;
            return;
        };
        made[shard] = true;
        if made.contains(&false) {
            self.phase = Phase::Committing { barrier, skipped, made, since };
            return;
        }
        let summary = (!skipped).then(|| barrier.summary());
        let step = self.progress.global_step.next();
        self.progress.global_step = step;
        self.progress.skipped_steps += u64::from(skipped);
        self.replayed_steps += u64::from(step <= self.committed_before);
        self.last_step = summary.or(self.last_step);
        self.throughput.add(&self.job.config, now.since(barrier.began));
        self.effects.push(Effect::Record(Line::Step {
            step,
            loss: summary.map(|summary| summary.loss),
            train_top1: summary.map(|summary| summary.top1),
            learning_rate: self.progress.learning_rate,
            images_per_second: self.throughput.images_per_second(),
            skipped,
        }));
        self.settle(now);
    }

    /// The checkpoint of [`Effect::Save`] is written, or could not be.
    pub(crate) fn saved(&mut self, now: Now, result: Result<(), String>) {
        assert!(self.saves.writing.take().is_some(), "a checkpoint was being written");
        self.saves.failure = result.err();
        if let Some(error) = &self.saves.failure {
            self.saves.taken = None;
            let text = format!("{error}; the run goes on without this checkpoint");
            self.effects.push(Effect::Notice(Level::Error, text));
        }
        self.save(now);
        self.serve(now);
    }

    /// The server shall stop: the current step is dropped, its state saved, every worker stopped.
    pub(crate) fn drain(&mut self, now: Now, reason: &str) {
        self.draining.get_or_insert_with(|| reason.to_owned());
        if matches!(self.phase, Phase::Evaluating(_) | Phase::Training(_)) {
            self.effects.push(Effect::Order(Order::Discard));
            self.settle(now);
        }
    }

    /// The state is whole: decides what comes next.
    pub(super) fn settle(&mut self, now: Now) {
        if let Some(reason) = self.draining.clone() {
            self.end(now, Ending::Drained, reason);
        } else if plateau::evaluation_due(&self.job, &self.progress) {
            let blocks = self.job.eval_blocks();
            self.phase = Phase::Evaluating(EvaluationBarrier::new(now, blocks));
        } else if let Some(reason) = plateau::finished(&self.progress, &self.job.config) {
            self.end(now, Ending::Finished, reason);
        } else {
            self.begin_step(now);
        }
        self.serve(now);
    }

    fn begin_step(&mut self, now: Now) {
        self.phase = Phase::Training(StepBarrier::new(now, self.job.config.replicas));
        self.replicas.begin();
        self.shares.clear();
        let number = self.progress.updates() + 1;
        let update = Update { number, learning_rate: self.progress.learning_rate };
        self.effects.push(Effect::Order(Order::Begin { step: self.progress.global_step, update }));
        let ready = self.members.iter().filter(|(_, member)| member.ready);
        let candidates: Vec<_> = ready
            .map(|(worker, member)| balance::Candidate {
                worker,
                contributions: member.contributions,
            })
            .collect();
        if !candidates.is_empty() {
            let holders: Vec<_> = self.replicas.holders().collect();
            let holders = balance::balance(&holders, &candidates, self.rotate);
            self.releases += self.replicas.rebalance(&holders);
            self.rotate = false;
        }
    }

    /// All blocks are in. Only evaluations at multiples of `checkpoint_every` feed the plateau and
    /// the best: the extra one at the last step is recorded but decides nothing, so that a run
    /// continued with a larger `max_steps` equals one that never stopped there.
    pub(super) fn evaluated(&mut self, now: Now, evaluation: Evaluation) {
        let step = evaluation.step;
        let mut reason = "not one of every checkpoint_every, so it decides nothing".to_owned();
        if step.0.is_multiple_of(self.job.config.checkpoint_every) {
            let verdict = plateau::judge(&self.progress, &evaluation, &self.job.config.optimizer);
            plateau::apply(&verdict, &evaluation, &mut self.progress);
            reason = verdict.reason;
            let best = self.progress.best_evaluation;
            if best.is_none_or(|best| evaluation.top1 > best.top1) {
                self.progress.best_evaluation = Some(evaluation);
            }
        }
        self.progress.last_evaluation = Some(evaluation);
        let Evaluation { samples, top1, top5, loss, .. } = evaluation;
        let text = format!(
            "{step}: top-1 {top1}, top-5 {top5} of {samples} images, loss {loss:.4}: {reason}"
        );
        self.effects.push(Effect::Notice(Level::Info, text));
        self.effects.push(Effect::Record(Line::Evaluation {
            step,
            samples,
            top1,
            top5,
            loss,
            learning_rate: self.progress.learning_rate,
            stale_evaluations: self.progress.stale_evaluations,
        }));
        self.rotate = true;
        self.phase = Phase::Saving;
        self.saves.due = true;
        self.save(now);
    }

    /// Takes the checkpoint that is due, unless an earlier one is still being written.
    fn save(&mut self, now: Now) {
        if self.saves.due && self.saves.writing.is_none() {
            self.saves.due = false;
            self.saves.writing = Some(now);
            self.saves.taken = Some(self.progress.clone());
            self.effects.push(Effect::Save(self.progress.clone()));
        }
        if !self.saves.due && matches!(self.phase, Phase::Saving) {
            self.settle(now);
        }
    }

    fn end(&mut self, now: Now, ending: Ending, reason: String) {
        self.effects.push(Effect::Notice(Level::Info, format!("the run ends: {reason}")));
        self.saves.due |= self.saves.taken.as_ref() != Some(&self.progress);
        self.phase = Phase::Ended(ending, reason);
        self.save(now);
    }

    /// The run cannot go on. Its newest checkpoint stays the newest.
    pub(super) fn fail(&mut self, reason: String) {
        self.effects.push(Effect::Notice(Level::Error, reason.clone()));
        self.effects.push(Effect::Order(Order::Discard));
        self.phase = Phase::Ended(Ending::Failed, reason);
    }
}
