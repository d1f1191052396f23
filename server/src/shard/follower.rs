//! A follower in one term: it has a part of the vectors and does what it is told.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use hw2_common::checkpoint::{self, PartFile};
use hw2_common::ids::{Assignment, GlobalStep, Term, WorkerId};
use hw2_common::job::Job;
use hw2_common::layout::ParamLayout;
use hw2_common::shard::Shard;
use hw2_common::spans::Spans;
use hw2_common::state::{State, Vectors};
use hw2_common::wire::Cut;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::{FromFollower, Probe, SavedPart, Store, ToFollower, Welcome};
use crate::coordinator::{Admission, Refusal, Share, check_term};
use crate::handle::{Command, Handle};
use crate::plane::{Plane, Tensors};
use crate::rpc::{Desk, Judge, Link, Receiver, Served};

/// Time between two reports for the trace.
const SPANS_INTERVAL: Duration = Duration::from_millis(500);

/// A follower in one term, with its part of the vectors.
pub(crate) struct Follower {
    term: Term,
    shard: Shard,
    store: Store,
    /// The parameters that are here.
    params: Range<usize>,
    replicas: u32,
    run_dir: PathBuf,
    reports: mpsc::UnboundedSender<FromFollower>,
    /// What to do with the coordinator's answers to [`FromFollower::PushBegins`].
    admissions: HashMap<u64, Asked>,
    /// Workers that it has let in.
    known: HashSet<WorkerId>,
    asked: u64,
    writing: JoinSet<(u64, SavedPart)>,
    spans: Option<Spans>,
}

/// A push that the coordinator was told of.
struct Asked {
    worker: WorkerId,
    assignment: Assignment,
    /// Not while it was let in at once.
    admitted: Option<Admitted>,
}

/// Takes the answer; whether somebody still waited for it.
type Admitted = Box<dyn FnOnce(Result<Admission, Refusal>) -> bool + Send>;

/// How a term ends for a follower.
pub(super) enum End {
    /// For good, and why.
    Stop(String),
    /// Another one follows.
    Over(String),
}

/// Loads the state, and serves it from then on.
pub(super) async fn begin(
    shard: Shard,
    welcome: Welcome,
    run_dir: Option<&Path>,
    desk: &Desk,
    (reports, spans): (mpsc::UnboundedSender<FromFollower>, Option<Spans>),
) -> anyhow::Result<(Follower, mpsc::UnboundedReceiver<Command<Follower>>, Duration)> {
    let Welcome { term, job_json, run_dir: theirs, probe, checkpoint, traces: _ } = welcome;
    let job: Job = serde_json::from_str(&job_json).context("the coordinator's job")?;
    let job = Job::new(job.config, job.dataset).context("the coordinator's job")?;
    let layout = job.layout()?;
    let cut = Cut::params(&layout, job.config.wire, shard.count).shard(shard)?;
    let run_dir = run_dir.map_or_else(|| theirs.clone().into(), Path::to_owned);
    let params = cut.values();
    let vectors = {
        let (job, layout, run_dir, params) =
            (job.clone(), layout.clone(), run_dir.clone(), params.clone());
        let load = move || {
            check_probe(shard, &run_dir, &probe, &theirs)?;
            load(&job, &layout, &run_dir, checkpoint, params)
        };
        tokio::task::spawn_blocking(load).await??
    };
    let step = checkpoint.unwrap_or_default();
    let (handle, commands) = Handle::<Follower>::new();
    let made = {
        let handle = handle.clone();
        move || handle.post(|follower| follower.report(FromFollower::UpdateMade))
    };
    let plane = Plane::start(&job, cut.clone(), step, vectors, made)
        .context("cannot start the data plane")?;
    tracing::info!(
        "{shard} at {step} of {term}: parameters {} to {} in {}",
        params.start,
        params.end,
        run_dir.display()
    );
    let judge = Judge::Follower(handle);
    let receiver = Receiver::new(judge, term, &job, layout, (shard, cut), plane.clone());
    desk.open(Served { term, job_json, shard, coordinating: None, receiver });
    let follower = Follower {
        term,
        shard,
        store: Store::new(plane),
        params,
        replicas: job.config.replicas,
        run_dir,
        reports,
        admissions: HashMap::new(),
        known: HashSet::new(),
        asked: 0,
        writing: JoinSet::new(),
        spans,
    };
    follower.report(FromFollower::Ready);
    Ok((follower, commands, Duration::from_millis(job.config.cluster.grace_ms)))
}

/// Whether this server can read what the coordinator wrote, and write beside it.
fn check_probe(shard: Shard, run_dir: &Path, probe: &Probe, theirs: &str) -> anyhow::Result<()> {
    let file = run_dir.join(&probe.file);
    let found = std::fs::read_to_string(&file);
    if found.is_ok_and(|content| content == probe.content) {
        tempfile::tempfile_in(run_dir).with_context(|| {
            format!("{shard} cannot write into the run's folder {}", run_dir.display())
        })?;
        return Ok(());
    }
    bail!(
        "{shard} does not see the run's folder: {} is not what the coordinator wrote to its {theirs}; \
         all servers must share that folder (--run-dir names it where this machine has it elsewhere)",
        file.display()
    )
}

/// The part `params` of the vectors, with which the run goes on or begins.
fn load(
    job: &Job,
    layout: &ParamLayout,
    run_dir: &Path,
    checkpoint: Option<GlobalStep>,
    params: Range<usize>,
) -> anyhow::Result<Vectors> {
    let vectors = match checkpoint {
        Some(step) => checkpoint::read_range(&run_dir.join(checkpoint::file_name(step)), params)?,
        None => State::initial(&job.config, layout).vectors.of_params(params),
    };
    // The first server has them.
    Ok(Vectors { buffers: Arc::default(), ..vectors })
}

impl Follower {
    /// Does what it is told until the term ends, or `grace` after it was asked to leave.
    pub(super) async fn run(
        mut self,
        mut commands: mpsc::UnboundedReceiver<Command<Self>>,
        mut link: Link,
        shutdown: &CancellationToken,
        grace: Duration,
    ) -> End {
        let _reporting = self
            .spans
            .clone()
            .map(|spans| AbortOnDropHandle::new(tokio::spawn(spans.report_every(SPANS_INTERVAL))));
        let mut leave_by: Option<Instant> = None;
        let patience = |by: Option<Instant>| async move {
            match by {
                Some(by) => tokio::time::sleep_until(by).await,
                None => std::future::pending().await,
            }
        };
        let end = loop {
            tokio::select! {
                Some(command) = commands.recv() => command(&mut self),
                order = link.next() => match order {
                    Ok(Some(ToFollower::Stop { reason })) => break End::Stop(reason),
                    Ok(Some(order)) => if let Err(why) = self.obey(order) {
                        break End::Over(why);
                    },
                    Ok(None) => break End::Over("the coordinator has ended it".into()),
                    Err(status) => break End::Over(status.message().to_owned()),
                },
                Some(written) = self.writing.join_next() => {
                    let (id, saved) = written.expect("what writes returns its errors");
                    self.report(FromFollower::Saved { id, saved });
                }
                () = shutdown.cancelled(), if leave_by.is_none() => {
                    leave_by = Some(Instant::now() + grace);
                    self.report(FromFollower::Leaving("a signal came".into()));
                }
                () = patience(leave_by) => {
                    break End::Stop("the coordinator did not stop in time".into());
                }
            }
        };
        // The next term writes files of the same names.
        while self.writing.join_next().await.is_some() {}
        match end {
            // Who was asked to stop does not begin again.
            End::Over(why) if shutdown.is_cancelled() => End::Stop(why),
            end => end,
        }
    }

    fn obey(&mut self, order: ToFollower) -> Result<(), String> {
        match order {
            ToFollower::Order(order) => self.store.obey(order)?,
            ToFollower::Admission { id, answer } => self.answered(id, answer),
            ToFollower::Save { id, step, folder } => self.save(id, step, &folder),
            ToFollower::Welcome(_) | ToFollower::Stop { .. } => {}
        }
        Ok(())
    }

    /// The coordinator has decided about a push.
    fn answered(&mut self, id: u64, answer: Result<Admission, Refusal>) {
        let Some(Asked { worker, assignment, admitted }) = self.admissions.remove(&id) else {
            return;
        };
        match &answer {
            Ok(_) => self.known.insert(worker),
            Err(_) => self.known.remove(&worker),
        };
        let is_received = answer == Ok(Admission::Receive);
        if let Some(admitted) = admitted
            && !admitted(answer)
            && is_received
        {
            // Its call is gone.
            self.push_failed(worker, assignment);
        }
    }

    /// Tells the coordinator that a push begins. One to the step under way, of a worker that it has
    /// let in before, is let in at once, any other when the answer is there.
    pub(crate) fn admit(
        &mut self,
        term: Term,
        worker: WorkerId,
        assignment: Assignment,
        admitted: impl FnOnce(Result<Admission, Refusal>) -> bool + Send + 'static,
    ) {
        if let Err(refusal) = check_term(self.term, term) {
            admitted(Err(refusal));
            return;
        }
        self.asked += 1;
        let id = self.asked;
        self.report(FromFollower::PushBegins { id, worker, assignment });
        let is_known = self.known.contains(&worker) && assignment.replica.0 < self.replicas;
        let admitted: Option<Admitted> = match is_known && self.store.takes(assignment.step) {
            // Most likely it is wanted, and the answer may be behind much else on a slow link. If
            // it is not, it is forgotten when all of it is there, or with the step.
            true => {
                admitted(Ok(Admission::Receive));
                None
            }
            false => Some(Box::new(admitted)),
        };
        self.admissions.insert(id, Asked { worker, assignment, admitted });
    }

    /// A push is complete here.
    pub(crate) fn receive(&mut self, share: Share, tensors: Tensors) {
        self.store.keep(share.worker, share.assignment, tensors);
        self.report(FromFollower::Received(share));
    }

    /// A push was cut off, or was not one.
    pub(crate) fn push_failed(&self, worker: WorkerId, assignment: Assignment) {
        self.report(FromFollower::PushFailed(worker, assignment));
    }

    /// Takes the state as it is now, and writes it while the run goes on.
    fn save(&mut self, id: u64, step: GlobalStep, folder: &str) {
        let (snapshot, shard, params) = (self.store.snapshot(), self.shard, self.params.clone());
        let (dir, spans) = (self.run_dir.join(folder), self.spans.clone());
        let write = move || -> anyhow::Result<PartFile> {
            std::fs::create_dir_all(&dir)
                .with_context(|| format!("cannot create {}", dir.display()))?;
            let vectors = snapshot.vectors();
            Ok(checkpoint::write_part(&dir, step, shard, params, &vectors)?)
        };
        let writing = tokio::task::spawn_blocking(write);
        self.writing.spawn(async move {
            let last = async {
                if let Some(spans) = spans {
                    // The run may end with this checkpoint.
                    spans.report_last().await;
                }
            };
            let (saved, ()) = tokio::join!(writing, last);
            let saved = saved.expect("what writes returns its errors");
            (id, saved.map_err(|error| format!("{error:#}")))
        });
    }

    fn report(&self, report: FromFollower) {
        // The end of a link that is gone is about to be noticed.
        let _ = self.reports.send(report);
    }
}
