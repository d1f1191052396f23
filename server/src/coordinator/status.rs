//! What the server is doing and whom it waits for, for people and for the reasons of waits.

use std::collections::VecDeque;
use std::time::Duration;

use hw2_common::config::Config;
use hw2_common::ids::{GlobalStep, Term, WorkerId};
use hw2_common::shard::Shard;
use hw2_common::state::Evaluation;

use super::{Coordinator, Ending, Level, Now, Phase, StepSummary};

/// Steps over which the speed is averaged.
const SPEED_STEPS: usize = 20;
/// Time between two words about how the run stands, and a wait that is worth one.
const TELL_EVERY: Duration = Duration::from_secs(30);
/// Leases that a wait names.
const NAMED_MAX: usize = 4;

/// The state of the run as people ask for it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Status {
    pub(crate) term: Term,
    pub(crate) global_step: GlobalStep,
    pub(crate) max_steps: u64,
    pub(crate) replicas: u32,
    pub(crate) batch_size: u32,
    pub(crate) phase: &'static str,
    pub(crate) workers: Vec<WorkerStatus>,
    /// Empty when nobody is waited for.
    pub(crate) waiting_for: String,
    pub(crate) waiting: Duration,
    pub(crate) learning_rate: f64,
    /// Of the last committed step.
    pub(crate) last_step: Option<StepSummary>,
    pub(crate) images_per_second: f64,
    pub(crate) last_evaluation: Option<Evaluation>,
    /// The highest top-1 so far, an extra evaluation at the last step included.
    pub(crate) best_evaluation: Option<Evaluation>,
    pub(crate) releases: u64,
    pub(crate) replayed_steps: u64,
    pub(crate) bad_images: u64,
    /// Empty while the run goes on.
    pub(crate) stop_reason: String,
}

/// One worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WorkerStatus {
    pub(crate) worker: WorkerId,
    pub(crate) label: String,
    pub(crate) leased_replicas: Vec<u32>,
    /// Of the current step: leased but not yet contributed.
    pub(crate) owed_replicas: Vec<u32>,
    pub(crate) leased_blocks: Vec<u32>,
    pub(crate) contributions: u64,
    pub(crate) silent: Duration,
}

/// Training images a second over the last steps.
#[derive(Clone, Debug, Default)]
pub(crate) struct Throughput {
    spans: VecDeque<Duration>,
    images_per_step: f64,
}

impl Throughput {
    /// A step took `span`.
    pub(crate) fn add(&mut self, config: &Config, span: Duration) {
        self.images_per_step = f64::from(config.replicas) * f64::from(config.batch_size);
        self.spans.push_back(span);
        if self.spans.len() > SPEED_STEPS {
            self.spans.pop_front();
        }
    }

    /// Zero before the first step.
    pub(crate) fn images_per_second(&self) -> f64 {
        let seconds: f64 = self.spans.iter().map(Duration::as_secs_f64).sum();
        match seconds > 0.0 {
            true => self.images_per_step * self.spans.len() as f64 / seconds,
            false => 0.0,
        }
    }
}

impl Coordinator {
    /// The state of the run at `now`.
    pub(crate) fn status(&self, now: Now) -> Status {
        Status {
            term: self.term,
            global_step: self.progress.global_step,
            max_steps: self.job.config.max_steps,
            replicas: self.job.config.replicas,
            batch_size: self.job.config.batch_size,
            phase: self.phase_name(),
            workers: self.worker_statuses(now),
            waiting_for: self.waiting_for(),
            waiting: self.waiting_since().map_or(Duration::ZERO, |since| now.since(since)),
            learning_rate: self.progress.learning_rate,
            last_step: self.last_step,
            images_per_second: self.throughput.images_per_second(),
            last_evaluation: self.progress.last_evaluation,
            best_evaluation: self.progress.best_known(),
            releases: self.releases,
            replayed_steps: self.replayed_steps,
            bad_images: self.bad_images.len() as u64,
            stop_reason: match &self.phase {
                Phase::Ended(_, reason) => reason.clone(),
                _ => self.draining.clone().unwrap_or_default(),
            },
        }
    }

    fn phase_name(&self) -> &'static str {
        match &self.phase {
            Phase::Ended(Ending::Finished, _) => "finished",
            Phase::Ended(Ending::Drained, _) => "draining",
            Phase::Ended(Ending::Failed, _) => "failed",
            _ if self.members.is_empty() => "waiting for workers",
            Phase::Evaluating(_) => "evaluating",
            Phase::Saving => "saving",
            Phase::Training(_) => "training",
            Phase::Committing { .. } => "committing",
        }
    }

    fn worker_statuses(&self, now: Now) -> Vec<WorkerStatus> {
        let training = matches!(self.phase, Phase::Training(_));
        let status = |(worker, member): (WorkerId, &super::membership::Member)| WorkerStatus {
            worker,
            label: member.label.clone(),
            leased_replicas: self.replicas.held_by(worker),
            owed_replicas: match training {
                true => self.replicas.owed_by(worker),
                false => Vec::new(),
            },
            leased_blocks: match &self.phase {
                Phase::Evaluating(barrier) => barrier.leases.owed_by(worker),
                _ => Vec::new(),
            },
            contributions: member.contributions,
            silent: now.since(member.seen),
        };
        self.members.iter().map(status).collect()
    }

    /// Tells people now and then how the run stands: a wait that is long, or how far it has come.
    pub(super) fn tell(&mut self, now: Now) {
        if now.since(self.told.0) < TELL_EVERY {
            return;
        }
        let step = self.progress.global_step;
        let waiting = self.waiting_since().map(|since| now.since(since));
        if let Some(waiting) = waiting.filter(|waiting| *waiting >= TELL_EVERY) {
            let text = format!("waiting for {} s for {}", waiting.as_secs(), self.waiting_for());
            self.notice(Level::Warn, text);
        } else if step > self.told.1
            && let Some(StepSummary { loss, top1 }) = self.last_step
        {
            let (max, speed) = (self.job.config.max_steps, self.throughput.images_per_second());
            let text = format!(
                "{step} of {max}: loss {loss:.4}, train top-1 {top1:.3}, {speed:.1} images/s"
            );
            self.notice(Level::Info, text);
        }
        self.told = (now, step);
    }

    /// Whom all wait for, in words; empty when nobody is waited for.
    pub(super) fn waiting_for(&self) -> String {
        let step = self.progress.global_step;
        let (unit, leases) = match &self.phase {
            Phase::Training(_) => ("replica", &self.replicas),
            Phase::Evaluating(barrier) => ("block", &barrier.leases),
            Phase::Saving => return "an earlier checkpoint that is still being written".into(),
            Phase::Committing { made, .. } => {
                let followers = Shard::all(made.len()).zip(made).skip(1);
                let missing = followers.filter(|(_, made)| !**made);
                let names: Vec<_> = missing.map(|(shard, _)| shard.to_string()).collect();
                return match names.is_empty() {
                    true => String::new(),
                    false => format!("{step}: the update of {}", names.join(", ")),
                };
            }
            Phase::Ended(..) => return String::new(),
        };
        if self.members.is_empty() {
            return format!("a worker that joins, at {step}");
        }
        let open: Vec<_> = leases.open().collect();
        let name = |(number, holder): &(u32, Option<WorkerId>)| match holder {
            Some(worker) => format!("{unit} {number} from {}", self.members.name(*worker)),
            None => format!("somebody to take {unit} {number}"),
        };
        let mut names: Vec<String> = open.iter().take(NAMED_MAX).map(name).collect();
        if open.len() > NAMED_MAX {
            names.push(format!("{} more", open.len() - NAMED_MAX));
        }
        format!("{step}: {}", names.join(", "))
    }

    fn waiting_since(&self) -> Option<Now> {
        match &self.phase {
            Phase::Training(barrier) => Some(barrier.began),
            Phase::Evaluating(barrier) => Some(barrier.began),
            Phase::Saving => self.saves.writing,
            Phase::Committing { since, .. } => Some(*since),
            Phase::Ended(..) => None,
        }
    }
}
