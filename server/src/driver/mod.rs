//! The one task that owns the coordinator: it feeds events in and carries out what is decided.

mod followers;
mod saves;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hw2_common::ids::{Assignment, Term, WorkerId};
use hw2_common::job::Job;
use hw2_common::shard::Shard;
use hw2_common::state::Progress;
use hw2_common::trace;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::coordinator::{
    Coordinator, Credit, Directive, Effect, Ending, Level, Now, Order, Outcome, Refusal, Replay,
    Share, Status, Waiter,
};
use crate::folder::RunFolder;
use crate::handle::Command;
use crate::plane::Tensors;
use crate::shard::{Store, ToFollower};
use followers::Led;
use saves::{Saves, ToWrite, Written};

/// Time between two looks at the clock.
const TICK: Duration = Duration::from_millis(20);

/// How a term ends.
pub(crate) enum TermEnd {
    /// The run goes on with another server, or not at all.
    Run(Ended),
    /// A follower is gone, and with it a part of the state: all begin again from the newest
    /// checkpoint.
    Lost(Shard),
}

/// How the run stands when the driver ends.
pub(crate) struct Ended {
    pub(crate) ending: Ending,
    pub(crate) reason: String,
    pub(crate) progress: Progress,
    pub(crate) last_checkpoint: Option<PathBuf>,
    pub(crate) save_failure: Option<String>,
}

/// Owns the control plane of a server, and the ways to everything it decides about.
pub(crate) struct Driver {
    coordinator: Coordinator,
    clock: Clock,
    job: Job,
    store: Store,
    followers: Vec<Led>,
    /// One that is gone.
    lost: Option<Shard>,
    folder: Arc<RunFolder>,
    last_checkpoint: Option<PathBuf>,
    /// When the step under way began.
    began: Instant,
    saves: Saves,
    /// Of the newest save.
    save_id: u64,
    waiters: u64,
    asking: HashMap<Waiter, oneshot::Sender<Directive>>,
    credits: HashMap<Waiter, oneshot::Sender<Credit>>,
}

impl Driver {
    /// Makes a driver of a `store` whose state is the one that the coordinator starts from.
    pub(crate) fn new(
        coordinator: Coordinator,
        clock: Clock,
        job: Job,
        store: Store,
        folder: RunFolder,
        resumed_from: Option<PathBuf>,
    ) -> Self {
        let folder = Arc::new(folder);
        Self {
            coordinator,
            clock,
            job,
            store,
            followers: Vec::new(),
            lost: None,
            saves: Saves::new(Arc::clone(&folder)),
            folder,
            last_checkpoint: resumed_from,
            began: Instant::now(),
            save_id: 0,
            waiters: 0,
            asking: HashMap::new(),
            credits: HashMap::new(),
        }
    }

    /// Works until the run is over and every worker has been told so, for which it waits at most
    /// `grace`, or until a follower is lost; `shutdown` ends the run early.
    pub(crate) async fn run(
        mut self,
        mut commands: mpsc::UnboundedReceiver<Command<Self>>,
        shutdown: &CancellationToken,
        grace: Duration,
    ) -> TermEnd {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut draining_since: Option<Now> = None;
        let mut over_since: Option<Now> = None;
        loop {
            tokio::select! {
                Some(command) = commands.recv() => command(&mut self),
                Some(written) = self.saves.next() => self.written(written),
                _ = ticks.tick() => {
                    let now = self.now();
                    self.coordinator.tick(now);
                }
                () = shutdown.cancelled(), if draining_since.is_none() => {
                    let now = self.now();
                    draining_since = Some(now);
                    self.coordinator.drain(now, "the server was asked to stop");
                }
            }
            if let Some(shard) = self.lost
                && self.coordinator.over().is_none()
            {
                if !self.coordinator.has_failed() {
                    return self.lose(shard).await;
                }
                // There is nothing to go on with; what is being written fails for want of a part.
                self.followers.clear();
                self.lost = None;
            }
            self.carry_out();
            if self.coordinator.over().is_some() {
                let now = self.now();
                let since = draining_since.unwrap_or(*over_since.get_or_insert(now));
                let done = self.coordinator.is_deserted(now) && self.saves.is_empty();
                if done || now.since(since) >= grace {
                    return TermEnd::Run(self.ended());
                }
            }
        }
    }

    /// Ends the term. What is being written is soon done, or fails for want of a part.
    async fn lose(mut self, shard: Shard) -> TermEnd {
        self.followers.clear();
        while self.saves.next().await.is_some() {}
        TermEnd::Lost(shard)
    }

    fn ended(self) -> Ended {
        let (ending, reason) = self.coordinator.over().expect("the driver ends after the run");
        for follower in &self.followers {
            // One that is gone needs not be told.
            let _ = follower.orders.send(ToFollower::Stop { reason: reason.to_owned() });
        }
        Ended {
            ending,
            reason: reason.to_owned(),
            progress: self.coordinator.progress().clone(),
            last_checkpoint: self.last_checkpoint,
            save_failure: self.coordinator.save_failure().map(str::to_owned),
        }
    }

    /// Has the coordinator handle a message of `term`.
    ///
    /// # Errors
    /// The term is over.
    pub(crate) fn in_term<T>(
        &mut self,
        term: Term,
        event: impl FnOnce(&mut Coordinator, Now) -> T,
    ) -> Result<T, Refusal> {
        self.coordinator.check_term(term)?;
        let now = self.now();
        Ok(event(&mut self.coordinator, now))
    }

    /// A worker asks what to do; the answer may take a while.
    pub(crate) fn next(
        &mut self,
        term: Term,
        worker: WorkerId,
        pushing: Option<Assignment>,
    ) -> Result<(Waiter, oneshot::Receiver<Directive>), Refusal> {
        self.coordinator.check_term(term)?;
        let (answer, wait) = oneshot::channel();
        let waiter = self.waiter();
        self.coordinator.next(self.now(), worker, pushing, waiter)?;
        self.asking.insert(waiter, answer);
        Ok((waiter, wait))
    }

    /// A worker asks to push; the answer may take a while.
    pub(crate) fn credit(
        &mut self,
        term: Term,
        worker: WorkerId,
        assignment: Assignment,
        computing: bool,
    ) -> Result<(Waiter, oneshot::Receiver<Credit>), Refusal> {
        self.coordinator.check_term(term)?;
        let (answer, wait) = oneshot::channel();
        let waiter = self.waiter();
        self.coordinator.credit(self.now(), worker, assignment, computing, waiter)?;
        self.credits.insert(waiter, answer);
        Ok((waiter, wait))
    }

    /// The call is gone: nobody waits for its answer.
    pub(crate) fn forget(&mut self, waiter: Waiter) {
        self.coordinator.forget(waiter);
        self.asking.remove(&waiter);
        self.credits.remove(&waiter);
    }

    /// A push is complete here.
    pub(crate) fn receive(&mut self, share: Share, tensors: Tensors) -> Result<Outcome, Refusal> {
        self.store.keep(share.worker, share.assignment, tensors);
        self.coordinator.receive(self.now(), share)
    }

    /// The vectors of the next step are made here.
    pub(crate) fn update_made(&mut self) {
        self.coordinator.update_made(self.now(), 0);
    }

    /// For people: the run, its folder, its newest checkpoint.
    pub(crate) fn status(&self) -> (Status, PathBuf, Option<PathBuf>) {
        let status = self.coordinator.status(self.now());
        (status, self.folder.path().to_owned(), self.last_checkpoint.clone())
    }

    /// A push was cut off, or was not one.
    pub(crate) fn push_failed(&mut self, worker: WorkerId, assignment: Assignment) {
        self.coordinator.push_failed(self.now(), worker, assignment);
    }

    fn now(&self) -> Now {
        Now(self.clock.now())
    }

    fn waiter(&mut self) -> Waiter {
        self.waiters += 1;
        Waiter(self.waiters)
    }

    fn carry_out(&mut self) {
        for effect in self.coordinator.take_effects() {
            match effect {
                Effect::Direct(waiter, directive) => self.direct(waiter, directive),
                Effect::GiveCredit(waiter, credit) => {
                    if let Some(answer) = self.credits.remove(&waiter) {
                        // A call that is gone asks again.
                        let _ = answer.send(credit);
                    }
                }
                Effect::Order(order) => self.order(order),
                Effect::Save(progress) => self.save(progress),
                Effect::Record(line) => self.folder.record(line),
                Effect::KeepReplay(replay) => self.keep_replay(replay),
                Effect::Notice(Level::Info, text) => tracing::info!("{text}"),
                Effect::Notice(Level::Warn, text) => tracing::warn!("{text}"),
                Effect::Notice(Level::Error, text) => tracing::error!("{text}"),
            }
        }
    }

    fn direct(&mut self, waiter: Waiter, directive: Directive) {
        if let Some(answer) = self.asking.remove(&waiter) {
            // A call that is gone asks again, and is told again.
            let _ = answer.send(directive);
        }
    }

    /// Has every server do something.
    fn order(&mut self, order: Order) {
        for follower in &self.followers {
            // The loss of one that is gone is about to be noticed.
            let _ = follower.orders.send(ToFollower::Order(order));
        }
        // What counts was put there with the share that made it count.
        self.store.obey(order).expect("what counts is here");
        match order {
            Order::Begin { .. } => self.began = Instant::now(),
            Order::Commit { step, .. } => {
                trace::span("steps", self.began, step, || "until all is in".into());
            }
            Order::Count(..) | Order::Forget(..) | Order::Discard => {}
        }
    }

    /// Takes a checkpoint, and writes it while the run goes on.
    fn save(&mut self, progress: Progress) {
        // Before followers write into it.
        if let Err(error) = self.folder.check_is_ours() {
            return self.coordinator.saved(self.now(), Err(error));
        }
        let checkpoint = self.take_state(progress, String::new());
        self.saves.checkpoint(checkpoint);
    }

    fn keep_replay(&mut self, replay: Replay) {
        let name = match self.folder.replay_folder(replay.assignment) {
            Ok(name) => name,
            Err(error) => return tracing::error!("no replay bundle: {error}"),
        };
        let checkpoint = self.take_state(replay.progress.clone(), name);
        self.saves.replay(checkpoint, replay);
    }

    /// The state as it is now; the followers write their parts of it into `folder`, which is one
    /// of the run's folder.
    fn take_state(&mut self, progress: Progress, folder: String) -> ToWrite {
        self.save_id += 1;
        let id = self.save_id;
        let part = |follower: &mut Led| {
            let (saved, part) = oneshot::channel();
            follower.saving.insert(id, saved);
            let (step, folder) = (progress.global_step, folder.clone());
            let _ = follower.orders.send(ToFollower::Save { id, step, folder });
            (follower.shard, part)
        };
        ToWrite {
            job: self.job.clone(),
            numeric_kind: self.coordinator.numeric_kind().map(str::to_owned),
            parts: self.followers.iter_mut().map(part).collect(),
            progress,
            snapshot: self.store.snapshot(),
        }
    }

    fn written(&mut self, written: Written) {
        let now = self.now();
        match written {
            Written::Checkpoint(Ok(path)) => {
                tracing::info!("wrote {}", path.display());
                self.last_checkpoint = Some(path);
                self.coordinator.saved(now, Ok(()));
            }
            Written::Checkpoint(Err(error)) => self.coordinator.saved(now, Err(error)),
            Written::Replay(Ok(path)) => tracing::info!("replay bundle: {}", path.display()),
            Written::Replay(Err(error)) => tracing::error!("no replay bundle: {error}"),
        }
    }
}
