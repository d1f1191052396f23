//! A server's life, from its folder to its outcome.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use hw2_common::ids::Term;
use hw2_common::job::Job;
use hw2_common::layout::ParamLayout;
use hw2_common::shard::Shard;
use hw2_common::state::Progress;
use hw2_common::wire::Cut;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::coordinator::{Coordinator, Ending, Expected, Now, Start};
use crate::driver::{Driver, Ended, TermEnd};
use crate::folder::{Opened, RunFolder};
use crate::handle::Handle;
use crate::listener::Listener;
use crate::plane::Plane;
use crate::rpc::{Coordinating, Desk, Edge, Judge, Receiver, Served};
use crate::shard::{FollowerLink, FromFollower, Muster, Probe, Store, ToFollower, Welcome};
use crate::trace::{TraceFile, TraceWriter};

/// Everything a server is given from outside.
#[derive(Debug)]
pub struct ServerSetup {
    /// What is to be trained, as [`Job::new`] has checked it; `config.run_dir` is where the run
    /// lives or will live.
    pub job: Job,
    /// Already bound.
    pub listener: Listener,
    /// Cancelled to end the server in good order: it saves the current step and stops its workers.
    pub shutdown: CancellationToken,
    /// Tells the time.
    pub clock: Clock,
    /// Where to write what servers and workers do when, if anybody wants to know.
    pub trace: Option<PathBuf>,
    /// Servers of the run, of which this one is the first: each has a part of the vectors.
    pub shards: usize,
}

/// How a run stands when its server ends in good order.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Whether training is over; if not, the server was asked to stop, and another one goes on.
    pub finished: bool,
    /// Why it ended, in words.
    pub reason: String,
    /// The last state.
    pub progress: Progress,
    /// The checkpoint of that state; none when the run has not begun.
    pub last_checkpoint: Option<PathBuf>,
}

/// Serves a run until it ends; one whose folder has a valid checkpoint goes on from the newest.
/// When one of several servers is lost, all wait for it and go on from there too.
///
/// # Errors
/// The folder belongs to another run (names what differs) or to another server; the run failed
/// (says why); its last state could not be saved.
pub async fn serve(setup: ServerSetup) -> anyhow::Result<Outcome> {
    let ServerSetup { job, listener, shutdown, clock, trace, shards } = setup;
    let open = |path: &PathBuf| {
        TraceFile::open(path).with_context(|| format!("cannot write the trace {}", path.display()))
    };
    let trace = trace.as_ref().map(open).transpose()?;
    let layout = job.layout()?;
    let cut =
        Cut::params(&layout, job.config.wire, shards).shard(Shard { index: 0, count: shards })?;
    let opened = open_folder(&job).await?;
    let trace = trace.map(|file| TraceFile::begin(file, shards)).transpose();
    let trace = trace.context("cannot write the trace")?;
    warn_of_small_dataset(&job);
    let desk = Desk::closed("the server is starting");
    let (muster, mut arrivals) = Muster::new(shards);
    let muster = (shards > 1).then_some(muster);
    let edge = Edge::start(listener, &desk, muster).context("cannot serve connections")?;
    let run = Run { job, layout, cut, shards, clock, desk: desk.clone() };
    let mut opened = Some(opened);
    let ended = loop {
        let followers = gather(shards, &mut arrivals, &desk, &shutdown).await;
        let opened = match opened.take() {
            Some(opened) => opened,
            None => open_folder(&run.job).await?,
        };
        let Some(followers) = followers else {
            edge.stop().await;
            return Ok(stopped(opened));
        };
        let writer = trace.as_ref().map(TraceFile::writer);
        let end = run.term(opened, followers, writer, &shutdown).await?;
        match end {
            TermEnd::Run(ended) => break ended,
            // Asked to stop, it did not wait for the followers to begin.
            TermEnd::Lost(_) if shutdown.is_cancelled() => {}
            TermEnd::Lost(shard) => {
                let text = format!("{shard} is gone: all go on from the newest checkpoint");
                tracing::warn!("{text}");
                desk.close(text);
            }
        }
    };
    edge.stop().await;
    desk.close("the run is over".into());
    if let Some(trace) = trace {
        tokio::task::spawn_blocking(|| trace.finish()).await?;
    }
    outcome(ended)
}

/// How a run stands whose server was asked to stop while it waited for followers.
fn stopped(opened: Opened) -> Outcome {
    let progress = opened.checkpoint.state.progress;
    let reason = "it was asked to stop while it waited for its followers".to_owned();
    Outcome { finished: false, reason, progress, last_checkpoint: opened.resumed_from }
}

async fn open_folder(job: &Job) -> anyhow::Result<Opened> {
    let (job, run_dir) = (job.clone(), PathBuf::from(&job.config.run_dir));
    tokio::task::spawn_blocking(move || RunFolder::open(&run_dir, &job)).await?
}

fn warn_of_small_dataset(job: &Job) {
    let step_images = u64::from(job.config.replicas) * u64::from(job.config.batch_size);
    let train = job.dataset.train;
    if step_images > train.into() {
        tracing::warn!(
            "a step takes {step_images} images (replicas x batch_size) and there are {train}: it \
             meets some of them more than once; smaller batches learn more from as many images"
        );
    }
}

/// Waits until all followers are there; none when asked to stop before.
async fn gather(
    shards: usize,
    arrivals: &mut mpsc::UnboundedReceiver<FollowerLink>,
    desk: &Desk,
    shutdown: &CancellationToken,
) -> Option<Vec<FollowerLink>> {
    let mut present: Vec<Option<FollowerLink>> = (1..shards).map(|_| None).collect();
    loop {
        for place in &mut present {
            // One that has gone again.
            place.take_if(|follower| follower.reports.is_closed());
        }
        if present.iter().all(Option::is_some) {
            return Some(present.into_iter().flatten().collect());
        }
        let missing = (1..shards).filter(|index| present[index - 1].is_none());
        let missing = missing.map(|index| Shard { index, count: shards }.to_string());
        let text = format!("waiting for {}", missing.collect::<Vec<_>>().join(", "));
        tracing::info!("{text}");
        desk.close(text);
        tokio::select! {
            Some(follower) = arrivals.recv() => {
                let place = follower.shard.index - 1;
                present[place] = Some(follower);
            }
            () = shutdown.cancelled() => return None,
        }
    }
}

/// What does not change from term to term.
struct Run {
    job: Job,
    layout: ParamLayout,
    /// Of this server's part.
    cut: Cut,
    shards: usize,
    clock: Clock,
    desk: Desk,
}

impl Run {
    /// One term, from the state in the folder to its end.
    async fn term(
        &self,
        opened: Opened,
        mut followers: Vec<FollowerLink>,
        trace: Option<TraceWriter>,
        shutdown: &CancellationToken,
    ) -> anyhow::Result<TermEnd> {
        let Self { job, layout, cut, shards, clock, desk } = self;
        let Opened { folder, checkpoint, resumed_from, committed_before } = opened;
        let (term, state) = (draw_term(), checkpoint.state);
        let step = state.progress.global_step;
        match &resumed_from {
            Some(path) => tracing::info!("going on at {step} from {}", path.display()),
            None => tracing::info!("beginning a run in {}", folder.path().display()),
        }
        let job_json = serde_json::to_string(job).expect("plain data always becomes JSON");
        let begins = resumed_from.as_ref().map(|_| step);
        let welcome = |probe| Welcome {
            term,
            job_json: job_json.clone(),
            run_dir: absolute(folder.path()),
            probe,
            checkpoint: begins,
            traces: trace.is_some(),
        };
        if let Err(shard) =
            begin_all(&mut followers, folder.path(), term, welcome, shutdown).await?
        {
            return Ok(TermEnd::Lost(shard));
        }

        let (handle, commands) = Handle::<Driver>::new();
        let made = {
            let handle = handle.clone();
            move || handle.post(Driver::update_made)
        };
        let vectors = state.vectors.of_params(cut.values());
        let plane = Plane::start(job, cut.clone(), step, vectors, made)
            .context("cannot start the data plane")?;
        let start = Start {
            term,
            expected: Expected {
                layout_fingerprint: layout.fingerprint(),
                config_fingerprint: job.config.fingerprint(),
                dataset_fingerprint: job.dataset.fingerprint.clone(),
                numeric_kind: checkpoint.numeric_kind,
                allow_mixed: job.config.cluster.allow_mixed,
            },
            job: job.clone(),
            progress: state.progress,
            resumed: resumed_from.is_some(),
            committed_before,
            contribution_bytes: (cut.values().len() * job.config.wire.bytes()) as u64,
            shards: *shards,
        };
        let coordinator = Coordinator::new(Now(clock.now()), start);
        let shard = Shard { index: 0, count: *shards };
        let judge = Judge::Coordinator(handle.clone());
        let part = (shard, cut.clone());
        let receiver = Receiver::new(judge, term, job, layout.clone(), part, plane.clone());
        let coordinating = Some(Coordinating {
            driver: handle.clone(),
            heartbeat_interval_ms: job.config.cluster.heartbeat_interval_ms as u32,
            trace,
        });
        let (clock, job) = (clock.clone(), job.clone());
        let grace = Duration::from_millis(job.config.cluster.grace_ms);
        let store = Store::new(plane);
        let mut driver = Driver::new(coordinator, clock, job, store, folder, resumed_from);
        driver.add(followers, &handle);
        desk.open(Served { term, job_json, shard, coordinating, receiver });
        Ok(driver.run(commands, shutdown, grace).await)
    }
}

/// Has the followers load the state, and waits until all have it; one that is lost meanwhile is an
/// error.
async fn begin_all(
    followers: &mut [FollowerLink],
    run_dir: &Path,
    term: Term,
    welcome: impl FnOnce(Probe) -> Welcome,
    shutdown: &CancellationToken,
) -> anyhow::Result<Result<(), Shard>> {
    if followers.is_empty() {
        return Ok(Ok(()));
    }
    let probe = Probe { file: format!(".probe-{:016x}", term.0), content: format!("{term}\n") };
    let file = run_dir.join(&probe.file);
    std::fs::write(&file, &probe.content)
        .with_context(|| format!("cannot write {}", file.display()))?;
    let welcome = welcome(probe);
    for follower in &*followers {
        // One that is gone is noticed below.
        let _ = follower.orders.send(ToFollower::Welcome(welcome.clone()));
    }
    let mut begun = Ok(());
    for follower in followers {
        let report = tokio::select! {
            report = follower.reports.recv() => report,
            () = shutdown.cancelled() => None,
        };
        match report {
            Some(FromFollower::Ready) => continue,
            Some(FromFollower::Unfit(reason)) => {
                tracing::warn!("{}: {reason}", follower.shard);
                let _ = follower.orders.send(ToFollower::Stop { reason });
            }
            _ => {}
        }
        begun = Err(follower.shard);
        break;
    }
    // It has done what it was there for.
    let _ = std::fs::remove_file(&file);
    Ok(begun)
}

/// For another process, which may work in another folder.
fn absolute(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
}

fn outcome(ended: Ended) -> anyhow::Result<Outcome> {
    let Ended { ending, reason, progress, last_checkpoint, save_failure } = ended;
    if ending == Ending::Failed {
        bail!("the run failed at {}: {reason}", progress.global_step);
    }
    if let Some(failure) = save_failure {
        bail!("the run ended ({reason}), but its last state is not saved: {failure}");
    }
    assert!(last_checkpoint.is_some(), "a run that ends has a checkpoint");
    Ok(Outcome { finished: ending == Ending::Finished, reason, progress, last_checkpoint })
}

/// A term that no earlier server of this run had, but for a chance of 2^-64.
fn draw_term() -> Term {
    // The hasher's keys come from the system's random numbers.
    Term(RandomState::new().build_hasher().finish())
}
