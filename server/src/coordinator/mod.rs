//! Decides everything that needs no tensor: a pure state machine with one method per event.
//!
//! The clock is an argument, and what is to be done comes back as [`Effect`]s, which the driver
//! carries out. So a test plays any schedule of deaths and delays without network, files or time.
//! Life of a step: its replicas are leased (`directives`), contributions come in (`contributions`),
//! the update is made ([`Order::Commit`]), and [`Coordinator::update_made`] moves on; every
//! `checkpoint_every` steps an evaluation and a checkpoint come between.

mod balance;
mod contributions;
mod credit;
mod directives;
mod effects;
mod evaluation;
mod leases;
mod membership;
mod phases;
mod plateau;
mod samples;
mod shares;
mod status;
mod step;
#[cfg(test)]
mod tests;
mod workers;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hw2_common::config::Cluster;
use hw2_common::ids::{Assignment, GlobalStep, Term, WorkerId};
use hw2_common::job::Job;
use hw2_common::state::Progress;

pub(crate) use contributions::{Admission, Outcome};
pub(crate) use credit::Credit;
use credit::Window;
pub(crate) use effects::{
    Directive, Effect, Leased, Level, Order, Refusal, Replay, Update, Waiter,
};
use evaluation::EvaluationBarrier;
pub(crate) use evaluation::{BlockReport, Counts};
use leases::Leases;
use membership::Members;
pub(crate) use membership::{Expected, Introduction, check_program};
pub use plateau::is_over;
use shares::Shares;
pub(crate) use shares::{Rest, Share};
use status::Throughput;
pub(crate) use status::{Status, WorkerStatus};
use step::Contribution;
#[cfg(test)]
use step::Digest;
use step::StepBarrier;
pub(crate) use step::{StepResult, StepSummary};
pub(crate) use workers::Standing;

/// Time for a worker that was told to stop to leave.
const FAREWELL: Duration = Duration::from_millis(500);

/// Time since the server started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Now(pub(crate) Duration);

impl Now {
    /// Zero when `earlier` is later.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// What the server is about.
#[derive(Clone, Debug)]
enum Phase {
    /// No step is leased until every block is in.
    Evaluating(EvaluationBarrier),
    /// An earlier checkpoint is still being written; the next is taken after it.
    Saving,
    Training(StepBarrier),
    /// All contributions are in; each server makes its part of the update.
    Committing {
        barrier: StepBarrier,
        skipped: bool,
        /// Which servers have made it.
        made: Vec<bool>,
        since: Now,
    },
    Ended(Ending, String),
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// No further step is due.
    Finished,
    /// The server was asked to stop.
    Drained,
    /// The run cannot go on.
    Failed,
}

/// Time limits, from `[cluster]`.
#[derive(Clone, Copy, Debug)]
struct Limits {
    silence: Duration,
    assignment: Duration,
    wait: Duration,
}

impl Limits {
    fn new(cluster: &Cluster) -> Self {
        Self {
            silence: Duration::from_millis(cluster.heartbeat_timeout_ms),
            assignment: Duration::from_millis(cluster.assignment_timeout_ms),
            wait: Duration::from_millis(cluster.wait_ms),
        }
    }
}

/// Where a run starts.
#[derive(Clone, Debug)]
pub(crate) struct Start {
    pub(crate) term: Term,
    pub(crate) job: Job,
    pub(crate) expected: Expected,
    pub(crate) progress: Progress,
    /// Whether `progress` comes from a checkpoint, which then need not be written again.
    pub(crate) resumed: bool,
    /// Steps that earlier terms had committed.
    pub(crate) committed_before: GlobalStep,
    /// Of a contribution, in the memory of this server.
    pub(crate) contribution_bytes: u64,
    /// Servers that have the vectors.
    pub(crate) shards: usize,
}

/// Refuses a message of another term than `ours`.
///
/// # Errors
/// It is of one.
pub(crate) fn check_term(ours: Term, theirs: Term) -> Result<(), Refusal> {
    match theirs == ours {
        true => Ok(()),
        false => {
            Err(Refusal::Rejoin(format!("{theirs} is over, the server is in {ours}: join again")))
        }
    }
}

/// The control plane of a run.
pub(crate) struct Coordinator {
    term: Term,
    job: Job,
    limits: Limits,
    window: Window,
    expected: Expected,
    shards: usize,
    shares: Shares,
    members: Members,
    /// When those hung up, by their labels, who were not told to stop and may soon join again.
    hung_up: BTreeMap<String, Now>,
    progress: Progress,
    phase: Phase,
    /// Leases of replicas; they outlive the step.
    replicas: Leases,
    /// Whether the next step's leases rotate to the workers that contributed least.
    rotate: bool,
    asking: BTreeMap<WorkerId, Asking>,
    credits: BTreeMap<WorkerId, Question>,
    /// Why the run shall stop at the next opportunity.
    draining: Option<String>,
    saves: Saves,
    committed_before: GlobalStep,
    replayed_steps: u64,
    releases: u64,
    bad_images: BTreeSet<String>,
    last_step: Option<StepSummary>,
    throughput: Throughput,
    ticked: Now,
    /// When people were last told how the run stands, and at which step.
    told: (Now, GlobalStep),
    effects: Vec<Effect>,
}

/// A worker that waits to be told what to do.
#[derive(Clone, Copy, Debug)]
struct Asking {
    waiter: Waiter,
    /// It began to wait; while it computes and pushes, it does not.
    since: Now,
    /// What it computes and pushes meanwhile.
    pushing: Option<Assignment>,
}

/// A worker that wants credit for a push.
#[derive(Clone, Copy, Debug)]
struct Question {
    waiter: Waiter,
    asked: Now,
    assignment: Assignment,
    /// It is still computing what it wants to push, and does not wait for others yet.
    computing: bool,
}

/// Which states are on their way to the disk.
#[derive(Clone, Debug, Default)]
struct Saves {
    /// The state is to be saved as soon as nothing is being written.
    due: bool,
    /// Since when a checkpoint is being written.
    writing: Option<Now>,
    /// What was taken last, and did not fail.
    taken: Option<Progress>,
    failure: Option<String>,
}

impl Saves {
    /// Whether a state is still to be written.
    fn are_pending(&self) -> bool {
        self.due || self.writing.is_some()
    }
}

impl Coordinator {
    /// A server that just started: no worker yet.
    pub(crate) fn new(now: Now, start: Start) -> Self {
        let Start { term, job, expected, progress, resumed, shards, .. } = start;
        let push_window = job.config.cluster.push_window;
        let mut coordinator = Self {
            term,
            limits: Limits::new(&job.config.cluster),
            window: Window::new(push_window, start.contribution_bytes),
            expected,
            shards,
            shares: Shares::new(shards),
            members: Members::default(),
            hung_up: BTreeMap::new(),
            phase: Phase::Saving,
            replicas: Leases::new(job.config.replicas),
            rotate: false,
            asking: BTreeMap::new(),
            credits: BTreeMap::new(),
            draining: None,
            saves: Saves { taken: resumed.then(|| progress.clone()), ..Saves::default() },
            committed_before: start.committed_before,
            replayed_steps: 0,
            releases: 0,
            bad_images: BTreeSet::new(),
            last_step: None,
            throughput: Throughput::default(),
            ticked: now,
            told: (now, progress.global_step),
            effects: Vec::new(),
            progress,
            job,
        };
        coordinator.settle(now);
        coordinator
    }

    /// Refuses a message of another term.
    pub(crate) fn check_term(&self, term: Term) -> Result<(), Refusal> {
        check_term(self.term, term)
    }

    /// What is to be done since the last call.
    pub(crate) fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// How and why the run ended, once nothing is left to be written.
    pub(crate) fn over(&self) -> Option<(Ending, &str)> {
        match &self.phase {
            Phase::Ended(ending, reason) if !self.saves.are_pending() => Some((*ending, reason)),
            _ => None,
        }
    }

    /// Whether the run cannot go on, not even from its checkpoint.
    pub(crate) fn has_failed(&self) -> bool {
        matches!(self.phase, Phase::Ended(Ending::Failed, _))
    }

    /// Whether every worker has left, or has had time to since it was told to stop, and none may
    /// still be on its way back to be told.
    pub(crate) fn is_deserted(&self, now: Now) -> bool {
        let gone = |told: Now| now.since(told) >= FAREWELL;
        let all_told = self.members.iter().all(|(_, member)| member.stopped.is_some_and(gone));
        all_told && self.hung_up.is_empty()
    }

    /// Why the state was not saved when it last should have been.
    pub(crate) fn save_failure(&self) -> Option<&str> {
        self.saves.failure.as_deref()
    }

    /// Counters and rates.
    pub(crate) fn progress(&self) -> &Progress {
        &self.progress
    }

    /// A worker, for people.
    pub(crate) fn name(&self, worker: WorkerId) -> String {
        self.members.name(worker)
    }

    /// Of the worker whose result was the first to count.
    pub(crate) fn numeric_kind(&self) -> Option<&str> {
        self.expected.numeric_kind.as_deref()
    }
}
