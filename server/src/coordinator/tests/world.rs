//! Everything around a coordinator: a clock, a data plane that is done at once, a disk.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hw2_common::config::Config;
use hw2_common::ids::{Assignment, BlockId, GlobalStep, ReplicaId, Term, WorkerId};
use hw2_common::job::{BUILD, Card, Job, PROTOCOL_VERSION};
use hw2_common::state::Progress;

use crate::coordinator::{
    Admission, BlockReport, Contribution, Coordinator, Counts, Credit, Digest, Directive, Effect,
    Expected, Introduction, Level, Now, Order, Outcome, Refusal, Replay, Rest, Share, Start,
    StepResult, Update, Waiter,
};
use crate::curve::Line;

/// Silence after which a worker is lost.
pub(super) const SILENCE_MS: u64 = 1_000;
/// Time without progress after which a worker loses its leases.
pub(super) const ASSIGNMENT_MS: u64 = 10_000;
/// Longest wait for a directive.
pub(super) const WAIT_MS: u64 = 500;
/// Time between two ticks and two heartbeats.
const TICK_MS: u64 = 100;

/// A small job: 3 replicas of 4 images, 5 blocks, evaluation every 4 steps.
pub(in crate::coordinator) fn job() -> Job {
    let mut config = Config {
        replicas: 3,
        batch_size: 4,
        checkpoint_every: 4,
        max_steps: 10,
        ..Config::default()
    };
    config.cluster.heartbeat_timeout_ms = SILENCE_MS;
    config.cluster.assignment_timeout_ms = ASSIGNMENT_MS;
    config.cluster.wait_ms = WAIT_MS;
    let dataset = Card {
        classes: vec!["a".into(), "b".into()],
        train: 30,
        val: 18,
        fingerprint: "dataset".into(),
    };
    Job { config, dataset }
}

/// What a worker of [`World`] says when it joins.
pub(super) fn introduction(label: &str) -> Introduction {
    Introduction {
        protocol_version: PROTOCOL_VERSION,
        build: BUILD.into(),
        layout_fingerprint: "layout".into(),
        config_fingerprint: "config".into(),
        dataset_fingerprint: "dataset".into(),
        numeric_kind: "avx512".into(),
        label: label.into(),
    }
}

/// The contribution that every honest worker computes.
pub(super) fn contribution(worker: WorkerId, step: u64, replica: u32) -> Contribution {
    let mix = step as u32 * 31 + replica;
    Contribution {
        worker,
        assignment: assignment(step, replica),
        digest: Digest { gradient: vec![mix], statistics: !mix },
        result: StepResult { loss: f64::from(replica) + 1.0, samples: 4, top1: replica.min(4) },
        bad_images: Vec::new(),
        non_finite: None,
    }
}

pub(super) fn assignment(step: u64, replica: u32) -> Assignment {
    Assignment { step: GlobalStep(step), replica: ReplicaId(replica) }
}

/// What the coordinator has ordered, said and answered so far.
pub(super) struct World {
    pub(super) coordinator: Coordinator,
    pub(super) job: Job,
    pub(super) now: Now,
    waiters: u64,
    pub(super) directed: BTreeMap<Waiter, Directive>,
    pub(super) credited: BTreeMap<Waiter, Credit>,
    /// Replicas whose tensors the data plane holds.
    pub(super) held: BTreeSet<u32>,
    /// Steps in the order of their commits, with their updates.
    pub(super) commits: Vec<(u64, Option<Update>)>,
    /// The step under way, with the update that it will make.
    begun: Option<(GlobalStep, Update)>,
    /// Whether a commit is done at once.
    pub(super) commits_at_once: bool,
    pub(super) saves: Vec<Progress>,
    /// Whether a checkpoint is written at once.
    pub(super) saves_at_once: bool,
    pub(super) lines: Vec<Line>,
    pub(super) replays: Vec<Replay>,
    pub(super) notices: Vec<(Level, String)>,
    /// Workers that send heartbeats while time passes.
    pub(super) alive: BTreeSet<WorkerId>,
}

impl World {
    pub(super) fn new(job: Job) -> Self {
        let progress = Progress::initial(&job.config.optimizer);
        Self::from(job, progress, false)
    }

    /// A server that goes on from a checkpoint, or begins.
    pub(super) fn from(job: Job, progress: Progress, resumed: bool) -> Self {
        Self::on_servers(1, job, progress, resumed)
    }

    /// The same with several servers.
    pub(super) fn on_servers(shards: usize, job: Job, progress: Progress, resumed: bool) -> Self {
        let now = Now(Duration::ZERO);
        let start = Start {
            term: Term(7),
            job: job.clone(),
            expected: Expected {
                layout_fingerprint: "layout".into(),
                config_fingerprint: "config".into(),
                dataset_fingerprint: "dataset".into(),
                numeric_kind: None,
                allow_mixed: job.config.cluster.allow_mixed,
            },
            progress,
            resumed,
            committed_before: GlobalStep(6),
            contribution_bytes: 0,
            shards,
        };
        let mut world = Self {
            coordinator: Coordinator::new(now, start),
            job,
            now,
            waiters: 0,
            directed: BTreeMap::new(),
            credited: BTreeMap::new(),
            held: BTreeSet::new(),
            commits: Vec::new(),
            begun: None,
            commits_at_once: true,
            saves: Vec::new(),
            saves_at_once: true,
            lines: Vec::new(),
            replays: Vec::new(),
            notices: Vec::new(),
            alive: BTreeSet::new(),
        };
        world.carry_out();
        world
    }

    /// One whose evaluation of step 0 is over, with `count` workers that wait for work.
    pub(super) fn training(job: Job, count: usize) -> (Self, Vec<WorkerId>) {
        let mut world = Self::new(job);
        let workers: Vec<_> = (0..count).map(|_| world.join()).collect();
        for worker in &workers {
            world.next(*worker);
        }
        workers.iter().for_each(|worker| world.evaluate(*worker));
        for worker in &workers {
            world.next(*worker);
        }
        (world, workers)
    }

    pub(super) fn carry_out(&mut self) {
        loop {
            let effects = self.coordinator.take_effects();
            if effects.is_empty() {
                return;
            }
            effects.into_iter().for_each(|effect| self.carry_out_one(effect));
        }
    }

    fn carry_out_one(&mut self, effect: Effect) {
        match effect {
            Effect::Direct(waiter, directive) => {
                let twice = self.directed.insert(waiter, directive);
                assert!(twice.is_none(), "each is told once");
            }
            Effect::GiveCredit(waiter, credit) => {
                let twice = self.credited.insert(waiter, credit);
                assert!(twice.is_none(), "a question is answered once");
            }
            Effect::Order(Order::Begin { step, update }) => self.begun = Some((step, update)),
            Effect::Order(Order::Commit { step, makes_update }) => {
                let (begun, update) = self.begun.take().expect("a step that commits has begun");
                assert_eq!(begun, step);
                let update = makes_update.then_some(update);
                if makes_update {
                    let all: BTreeSet<u32> = (0..self.job.config.replicas).collect();
                    assert_eq!(self.held, all, "each replica once");
                }
                self.held.clear();
                self.commits.push((step.0, update));
                if self.commits_at_once {
                    self.coordinator.update_made(self.now, 0);
                }
            }
            Effect::Order(Order::Count(_, assignment)) => {
                assert!(self.held.insert(assignment.replica.0), "counted once");
            }
            Effect::Order(Order::Forget(..)) => {}
            Effect::Order(Order::Discard) => self.held.clear(),
            Effect::Save(progress) => {
                self.saves.push(progress);
                if self.saves_at_once {
                    self.coordinator.saved(self.now, Ok(()));
                }
            }
            Effect::Record(line) => self.lines.push(line),
            Effect::KeepReplay(replay) => self.replays.push(replay),
            Effect::Notice(level, text) => self.notices.push((level, text)),
        }
    }

    pub(super) fn join(&mut self) -> WorkerId {
        let label = format!("host:{}", self.alive.len());
        let worker = self.coordinator.join(self.now, introduction(&label)).unwrap();
        self.alive.insert(worker);
        self.carry_out();
        worker
    }

    pub(super) fn leave(&mut self, worker: WorkerId) {
        self.coordinator.leave(self.now, worker, "test");
        self.alive.remove(&worker);
        self.carry_out();
    }

    pub(super) fn hang_up(&mut self, worker: WorkerId) {
        self.coordinator.hang_up(self.now, worker);
        self.alive.remove(&worker);
        self.carry_out();
    }

    fn waiter(&mut self) -> Waiter {
        self.waiters += 1;
        Waiter(self.waiters)
    }

    pub(super) fn next(&mut self, worker: WorkerId) -> Waiter {
        self.ask_this(worker, None)
    }

    pub(super) fn next_while_pushing(&mut self, worker: WorkerId, what: Assignment) -> Waiter {
        self.ask_this(worker, Some(what))
    }

    fn ask_this(&mut self, worker: WorkerId, pushing: Option<Assignment>) -> Waiter {
        let waiter = self.waiter();
        self.coordinator.next(self.now, worker, pushing, waiter).unwrap();
        self.carry_out();
        waiter
    }

    /// Asks what to do; the replicas that the worker shall compute now.
    pub(super) fn replicas(&mut self, worker: WorkerId) -> Vec<u32> {
        let waiter = self.next(worker);
        match self.directed.get(&waiter) {
            Some(Directive::Run { assignments, .. }) => {
                assignments.iter().map(|leased| leased.replica.0).collect()
            }
            None => Vec::new(),
            Some(other) => panic!("{other:?} instead of assignments"),
        }
    }

    pub(super) fn ask_credit(&mut self, worker: WorkerId, step: u64, replica: u32) -> Waiter {
        self.ask_credit_early(worker, step, replica, false)
    }

    /// The same, of a worker that may still be computing.
    pub(super) fn ask_credit_early(
        &mut self,
        worker: WorkerId,
        step: u64,
        replica: u32,
        computing: bool,
    ) -> Waiter {
        let waiter = self.waiter();
        let assignment = assignment(step, replica);
        self.coordinator.credit(self.now, worker, assignment, computing, waiter).unwrap();
        self.carry_out();
        waiter
    }

    /// Pushes what an honest worker computes.
    pub(super) fn push(&mut self, worker: WorkerId, step: u64, replica: u32) -> Outcome {
        self.push_this(contribution(worker, step, replica)).unwrap()
    }

    pub(super) fn push_this(&mut self, contribution: Contribution) -> Result<Outcome, Refusal> {
        let Contribution { worker, assignment, .. } = contribution;
        let admission = self.coordinator.admit(self.now, worker, assignment)?;
        self.carry_out();
        if admission == Admission::Discard {
            return Ok(Outcome::Dropped);
        }
        let outcome = self.coordinator.receive(self.now, share(contribution));
        self.carry_out();
        outcome
    }

    pub(super) fn report(&mut self, worker: WorkerId, step: u64, block: u32, top1: u32) {
        self.report_this(block_report(worker, step, block, top1)).unwrap();
    }

    pub(super) fn report_this(&mut self, report: BlockReport) -> Result<(), Refusal> {
        let result = self.coordinator.report(self.now, report);
        self.carry_out();
        result
    }

    /// Has `worker` alone evaluate the current step, with one right answer in each block.
    pub(super) fn evaluate(&mut self, worker: WorkerId) {
        self.evaluate_with(worker, 1);
    }

    pub(super) fn evaluate_with(&mut self, worker: WorkerId, top1: u32) {
        loop {
            let waiter = self.next(worker);
            let Some(Directive::Evaluate { step, blocks }) = self.directed.get(&waiter).cloned()
            else {
                return self.coordinator.forget(waiter);
            };
            for block in blocks {
                self.report(worker, step.0, block.0, top1);
            }
        }
    }

    /// Has each of `workers` do what it is told until the step is committed.
    pub(super) fn step(&mut self, workers: &[WorkerId]) {
        let step = self.global_step();
        for worker in workers.iter().cycle().take(10 * workers.len()) {
            for replica in self.replicas(*worker) {
                self.push(*worker, step, replica);
            }
            if self.global_step() > step {
                return;
            }
        }
        panic!("step {step} does not end");
    }

    /// Lets time pass, with ticks, and heartbeats of those that are alive.
    pub(super) fn pass(&mut self, ms: u64) {
        for _ in 0..ms / TICK_MS {
            self.now = Now(self.now.0 + Duration::from_millis(TICK_MS));
            for worker in self.alive.clone() {
                self.coordinator.heartbeat(self.now, worker);
            }
            self.coordinator.tick(self.now);
            self.carry_out();
        }
    }

    pub(super) fn global_step(&self) -> u64 {
        self.coordinator.progress().global_step.0
    }

    /// Whether something was said that contains `text`.
    pub(super) fn said(&self, level: Level, text: &str) -> bool {
        self.notices.iter().any(|(at, notice)| *at == level && notice.contains(text))
    }

    pub(super) fn releases(&self) -> u64 {
        self.coordinator.status(self.now).releases
    }
}

/// All of a contribution, which one server receives.
pub(super) fn share(contribution: Contribution) -> Share {
    let Contribution { worker, assignment, digest, result, bad_images, non_finite } = contribution;
    let rest = Some(Rest { statistics: digest.statistics, result, bad_images });
    Share { worker, assignment, shard: 0, gradient: digest.gradient[0], non_finite, rest }
}

/// Counts of a block of the job of [`job`].
pub(super) fn block_report(worker: WorkerId, step: u64, block: u32, top1: u32) -> BlockReport {
    let samples = if block == 4 { 2 } else { 4 };
    let counts = Counts { samples, top1, top5: samples, loss_sum: f64::from(block) };
    let (step, block) = (GlobalStep(step), BlockId(block));
    BlockReport { worker, step, block, counts, bad_images: Vec::new() }
}
