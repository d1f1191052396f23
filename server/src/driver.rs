//! The one task that owns the coordinator: it feeds events in and carries out what is decided.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hw2_common::checkpoint::Checkpoint;
use hw2_common::ids::{Assignment, Term, WorkerId};
use hw2_common::job::Job;
use hw2_common::state::{Progress, State};
use hw2_common::trace;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::coordinator::{
    Contribution, Coordinator, Credit, Directive, Effect, Ending, Level, Now, Outcome, Refusal,
    Replay, Status, Waiter,
};
use crate::folder::{RunFolder, Saved};
use crate::plane::{Plane, Snapshot, Tensors};

/// Time between two looks at the clock.
const TICK: Duration = Duration::from_millis(20);

/// Something for the driver to do, between two of which it carries out what was decided.
type Command = Box<dyn FnOnce(&mut Driver) + Send>;

/// A way to the driver. Clones lead to the same one.
#[derive(Clone)]
pub(crate) struct Handle {
    commands: mpsc::UnboundedSender<Command>,
}

/// The driver has ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gone;

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
    plane: Plane,
    folder: Arc<RunFolder>,
    last_checkpoint: Option<PathBuf>,
    /// When the step under way began.
    began: Instant,
    /// Files that are being written.
    writing: JoinSet<Written>,
    waiters: u64,
    asking: HashMap<Waiter, oneshot::Sender<Directive>>,
    credits: HashMap<Waiter, oneshot::Sender<Credit>>,
}

/// What was written aside.
enum Written {
    Checkpoint(Saved),
    Replay(Saved),
}

impl Handle {
    /// A way to a driver that is still to be made, and its end for [`Driver::run`].
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<Command>) {
        let (commands, received) = mpsc::unbounded_channel();
        (Self { commands }, received)
    }

    /// Has the driver do `command` and waits for its answer.
    ///
    /// # Errors
    /// [`Gone`] when the server is ending.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        command: impl FnOnce(&mut Driver) -> T + Send + 'static,
    ) -> Result<T, Gone> {
        let (answer, wait) = oneshot::channel();
        // An answer that nobody waits for any more is dropped.
        self.post(move |driver| drop(answer.send(command(driver))));
        wait.await.map_err(|_| Gone)
    }

    /// Has the driver do `command`, if it is still there.
    pub(crate) fn post(&self, command: impl FnOnce(&mut Driver) + Send + 'static) {
        let _ = self.commands.send(Box::new(command));
    }
}

impl Driver {
    /// Makes a driver of a `plane` whose state is the one that the coordinator starts from.
    pub(crate) fn new(
        coordinator: Coordinator,
        clock: Clock,
        job: Job,
        plane: Plane,
        folder: RunFolder,
        resumed_from: Option<PathBuf>,
    ) -> Self {
        Self {
            coordinator,
            clock,
            job,
            plane,
            folder: Arc::new(folder),
            last_checkpoint: resumed_from,
            began: Instant::now(),
            writing: JoinSet::new(),
            waiters: 0,
            asking: HashMap::new(),
            credits: HashMap::new(),
        }
    }

    /// Works until the run is over and every worker has been told so, for which it waits at most
    /// `grace`; `shutdown` ends the run early.
    pub(crate) async fn run(
        mut self,
        mut commands: mpsc::UnboundedReceiver<Command>,
        shutdown: CancellationToken,
        grace: Duration,
    ) -> Ended {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut draining_since: Option<Now> = None;
        let mut over_since: Option<Now> = None;
        loop {
            tokio::select! {
                Some(command) = commands.recv() => command(&mut self),
                Some(written) = self.writing.join_next() => self.written(written),
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
            self.carry_out();
            if self.coordinator.over().is_some() {
                let now = self.now();
                let since = draining_since.unwrap_or(*over_since.get_or_insert(now));
                let done = self.coordinator.is_deserted(now) && self.writing.is_empty();
                if done || now.since(since) >= grace {
                    return self.ended();
                }
            }
        }
    }

    fn ended(self) -> Ended {
        let (ending, reason) = self.coordinator.over().expect("the driver ends after the run");
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
    ) -> Result<(Waiter, oneshot::Receiver<Credit>), Refusal> {
        self.coordinator.check_term(term)?;
        let (answer, wait) = oneshot::channel();
        let waiter = self.waiter();
        self.coordinator.credit(self.now(), worker, assignment, waiter)?;
        self.credits.insert(waiter, answer);
        Ok((waiter, wait))
    }

    /// The call is gone: nobody waits for its answer.
    pub(crate) fn forget(&mut self, waiter: Waiter) {
        self.coordinator.forget(waiter);
        self.asking.remove(&waiter);
        self.credits.remove(&waiter);
    }

    /// A push is complete.
    pub(crate) fn contribute(
        &mut self,
        contribution: Contribution,
        tensors: Tensors,
    ) -> Result<Outcome, Refusal> {
        let outcome = self.coordinator.contribute(self.now(), contribution)?;
        if outcome == Outcome::Counted {
            self.plane.count(tensors);
        }
        Ok(outcome)
    }

    /// The data plane has made the vectors of the next step.
    pub(crate) fn committed(&mut self) {
        self.coordinator.committed(self.now());
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
                Effect::Begin { step, update } => {
                    self.plane.begin(step, update);
                    self.began = Instant::now();
                }
                Effect::Commit { step, makes_update } => {
                    self.plane.commit(step, makes_update);
                    trace::span("steps", self.began, step, || "until all is in".into());
                }
                Effect::Discard => self.plane.discard(),
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

    /// Takes a checkpoint, and writes it while the run goes on.
    fn save(&mut self, progress: Progress) {
        let (folder, writing) = (Arc::clone(&self.folder), self.to_write(progress));
        self.writing.spawn(async move {
            Written::Checkpoint(writing.write(move |checkpoint| folder.save(&checkpoint)).await)
        });
    }

    fn keep_replay(&mut self, replay: Replay) {
        let (folder, writing) = (Arc::clone(&self.folder), self.to_write(replay.progress.clone()));
        self.writing.spawn(async move {
            let keep = move |checkpoint| folder.keep_replay(&checkpoint, &replay);
            Written::Replay(writing.write(keep).await)
        });
    }

    fn to_write(&self, progress: Progress) -> ToWrite {
        ToWrite {
            job: self.job.clone(),
            numeric_kind: self.coordinator.numeric_kind().map(str::to_owned),
            progress,
            snapshot: self.plane.snapshot(),
        }
    }

    fn written(&mut self, written: Result<Written, JoinError>) {
        let now = self.now();
        match written.expect("what writes returns its errors") {
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

/// A checkpoint whose vectors are still shared with the run.
struct ToWrite {
    job: Job,
    numeric_kind: Option<String>,
    progress: Progress,
    snapshot: Snapshot,
}

impl ToWrite {
    /// Copies and writes on a thread of its own.
    async fn write(self, write: impl FnOnce(Checkpoint) -> Saved + Send + 'static) -> Saved {
        let writing = tokio::task::spawn_blocking(move || {
            let began = Instant::now();
            let Self { job, numeric_kind, progress, snapshot } = self;
            let state = State { progress, vectors: snapshot.vectors() };
            let step = state.progress.global_step;
            let saved = write(Checkpoint::new(job, numeric_kind, state));
            trace::span("checkpoints", began, step, || "write".into());
            saved
        });
        writing.await.unwrap_or_else(|error| Err(format!("a checkpoint's writer failed: {error}")))
    }
}
