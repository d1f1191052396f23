//! A server's life, from its folder to its outcome.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use hw2_common::ids::Term;
use hw2_common::job::Job;
use hw2_common::state::Progress;
use hw2_common::wire::Cut;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::coordinator::{Coordinator, Ending, Expected, Now, Start};
use crate::driver::{Driver, Ended, Handle};
use crate::folder::{Opened, RunFolder};
use crate::listener::Listener;
use crate::plane::Plane;
use crate::rpc::Edge;
use crate::trace::TraceFile;

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
    /// Where to write what the server and its workers do when, if anybody wants to know.
    pub trace: Option<PathBuf>,
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
    /// The checkpoint of that state.
    pub last_checkpoint: PathBuf,
}

/// Serves a run until it ends; one whose folder has a valid checkpoint goes on from the newest.
///
/// # Errors
/// The folder belongs to another run (names what differs) or to another server; the run failed
/// (says why); its last state could not be saved.
pub async fn serve(setup: ServerSetup) -> anyhow::Result<Outcome> {
    let ServerSetup { job, listener, shutdown, clock, trace } = setup;
    let open = |path: &PathBuf| {
        TraceFile::open(path).with_context(|| format!("cannot write the trace {}", path.display()))
    };
    let trace = trace.as_ref().map(open).transpose()?;
    let layout = job.layout()?;
    let run_dir = PathBuf::from(&job.config.run_dir);
    let Opened { folder, checkpoint, resumed_from, committed_before } = {
        let job = job.clone();
        tokio::task::spawn_blocking(move || RunFolder::open(&run_dir, &job)).await??
    };
    let trace = trace.map(TraceFile::begin).transpose().context("cannot write the trace")?;
    let state = checkpoint.state;
    let step = state.progress.global_step;
    match &resumed_from {
        Some(path) => tracing::info!("going on at {step} from {}", path.display()),
        None => tracing::info!("beginning a run in {}", folder.path().display()),
    }
    let step_images = u64::from(job.config.replicas) * u64::from(job.config.batch_size);
    let train = job.dataset.train;
    if step_images > train.into() {
        tracing::warn!(
            "a step takes {step_images} images (replicas x batch_size) and there are {train}: it \
             meets some of them more than once; smaller batches learn more from as many images"
        );
    }

    let (handle, commands) = Handle::new();
    let committed = {
        let handle = handle.clone();
        move || handle.post(Driver::committed)
    };
    let plane = Plane::start(&job, Cut::params(&layout), step, state.vectors, committed)
        .context("cannot start the data plane")?;
    let term = draw_term();
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
        contribution_bytes: (layout.params.len() * job.config.wire.bytes()) as u64,
    };
    let coordinator = Coordinator::new(Now(clock.now()), start);
    let writer = trace.as_ref().map(TraceFile::writer);
    let edge = Edge::start(listener, &handle, term, &job, layout, plane.clone(), writer)
        .context("cannot serve connections")?;
    let grace = Duration::from_millis(job.config.cluster.grace_ms);
    let driver = Driver::new(coordinator, clock, job, plane, folder, resumed_from);
    let ended = driver.run(commands, shutdown, grace).await;
    edge.stop().await;
    if let Some(trace) = trace {
        tokio::task::spawn_blocking(|| trace.finish()).await?;
    }
    outcome(ended)
}

fn outcome(ended: Ended) -> anyhow::Result<Outcome> {
    let Ended { ending, reason, progress, last_checkpoint, save_failure } = ended;
    if ending == Ending::Failed {
        bail!("the run failed at {}: {reason}", progress.global_step);
    }
    if let Some(failure) = save_failure {
        bail!("the run ended ({reason}), but its last state is not saved: {failure}");
    }
    let last_checkpoint = last_checkpoint.context("a run that ends has a checkpoint")?;
    Ok(Outcome { finished: ending == Ending::Finished, reason, progress, last_checkpoint })
}

/// A term that no earlier server of this run had, but for a chance of 2^-64.
fn draw_term() -> Term {
    // The hasher's keys come from the system's random numbers.
    Term(RandomState::new().build_hasher().finish())
}
