//! The worker's life: connect, join, do what the server says, and join again when it must.

use std::time::{Duration, Instant};

use anyhow::bail;
use hw2_common::ids::Assignment;
use tokio_util::sync::CancellationToken;

use super::prepared::{ComputeError, Prepared};
use crate::args::WorkerArgs;
use crate::ps::{
    Client, Contribution, Credit, Directive, EvaluationReport, Held, Hello, PsError, Session,
};

/// First and longest pause between two attempts to reach the server, or to join.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(1);
/// A session that lasted this long was no failed attempt.
const SETTLED: Duration = Duration::from_secs(10);

/// Why a session ended without an error.
enum End {
    /// The run is over, for this reason.
    RunEnded(String),
    /// This process was asked to stop.
    Stopped,
}

/// Why a session broke.
#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error(transparent)]
    Ps(#[from] PsError),
    #[error(transparent)]
    Compute(#[from] ComputeError),
}

/// Works for the server until the run ends or `stop` is cancelled.
///
/// # Errors
/// The server refuses this worker, cannot be reached for `patience_s`, or the data or the device
/// fails.
pub fn run(args: &WorkerArgs, stop: &CancellationToken) -> anyhow::Result<()> {
    let mut prepared: Option<Prepared> = None;
    let mut pauses = Pauses::default();
    loop {
        let Some((client, hello)) = connect(args, stop)? else { return Ok(()) };
        let kept = prepared.take().filter(|kept| kept.job == hello.job);
        let ready = match kept {
            Some(kept) => kept,
            None => Prepared::new(hello.job, args)?,
        };
        let ready = prepared.insert(ready);
        let session = match client.join(hello.term, &ready.credentials) {
            Ok(session) => session,
            Err(PsError::Stopped) => return Ok(()),
            Err(error @ PsError::Refused(_)) => return Err(error.into()),
            Err(error) => {
                tracing::warn!("cannot join: {error}");
                pauses.wait();
                continue;
            }
        };
        tracing::info!("joined as {} of {}", session.worker(), hello.term);
        let joined = Instant::now();
        match serve(&session, ready, stop) {
            Ok(End::RunEnded(reason)) => {
                tracing::info!("the run has ended: {reason}");
                // The run is over whether or not the server still hears this.
                let _ = session.leave("the run has ended");
                return Ok(());
            }
            Ok(End::Stopped) | Err(SessionError::Ps(PsError::Stopped)) => {
                tracing::info!("asked to stop: leaving");
                return Ok(session.leave("asked to stop")?);
            }
            Err(SessionError::Ps(error @ PsError::Refused(_))) => return Err(error.into()),
            Err(SessionError::Ps(error)) => tracing::warn!("joining again: {error}"),
            Err(SessionError::Compute(error)) => {
                // Another worker may be able to do what this one cannot.
                let _ = session.leave(&error.to_string());
                return Err(error.into());
            }
        }
        if joined.elapsed() >= SETTLED {
            pauses = Pauses::default();
        }
        pauses.wait();
    }
}

/// Longer and longer pauses between attempts.
struct Pauses {
    next: Duration,
}

impl Default for Pauses {
    fn default() -> Self {
        Self { next: RETRY_MIN }
    }
}

impl Pauses {
    fn wait(&mut self) {
        std::thread::sleep(self.next);
        self.next = (self.next * 2).min(RETRY_MAX);
    }
}

/// Asks for the job until there is a server; nothing when asked to stop.
fn connect(args: &WorkerArgs, stop: &CancellationToken) -> anyhow::Result<Option<(Client, Hello)>> {
    let began = Instant::now();
    let mut pauses = Pauses::default();
    loop {
        let answer = Client::connect(&args.ps, stop)
            .and_then(|client| client.hello().map(|hello| (client, hello)));
        match answer {
            Ok(answer) => return Ok(Some(answer)),
            Err(PsError::Stopped) => return Ok(None),
            Err(error @ PsError::Refused(_)) => return Err(error.into()),
            Err(error) if began.elapsed() >= Duration::from_secs(args.patience_s) => bail!(
                "no server at {} for {} s ({error}): start ps-server there, or correct --ps",
                args.ps,
                args.patience_s
            ),
            Err(error) => tracing::debug!("no server at {} yet: {error}", args.ps),
        }
        pauses.wait();
    }
}

/// Follows directives until the session ends.
fn serve(
    session: &Session,
    prepared: &mut Prepared,
    stop: &CancellationToken,
) -> Result<End, SessionError> {
    let mut held = Held::new(&prepared.layout);
    let mut contribution = Contribution::new(&prepared.layout);
    loop {
        if stop.is_cancelled() {
            return Ok(End::Stopped);
        }
        let (directive, received) = session.pull(held)?;
        held = received;
        match directive {
            Directive::Run { step, assignments } => {
                prepared.load_weights(&held);
                for (replica, credit) in assignments {
                    if stop.is_cancelled() || session.is_lost() {
                        break;
                    }
                    let assignment = Assignment { step, replica };
                    contribute(session, prepared, assignment, credit, &mut contribution)?;
                }
            }
            Directive::Evaluate { step, blocks } => {
                prepared.load_ema(&held);
                for block in blocks {
                    if stop.is_cancelled() || session.is_lost() {
                        break;
                    }
                    let (tally, bad_images) = prepared.evaluate(block)?;
                    session.report(EvaluationReport {
                        step,
                        block,
                        samples: tally.samples,
                        top1: tally.top1,
                        top5: tally.top5,
                        loss_sum: tally.loss_sum,
                        bad_images,
                    })?;
                }
            }
            Directive::Wait(reason) => tracing::debug!("waiting: {reason}"),
            Directive::Rejoin(reason) => return Err(PsError::Rejoin(reason).into()),
            Directive::Stop(reason) => return Ok(End::RunEnded(reason)),
        }
        if session.is_lost() {
            return Err(PsError::Rejoin("the heartbeat was not answered".into()).into());
        }
    }
}

/// Computes one assignment and pushes it, when there is credit.
fn contribute(
    session: &Session,
    prepared: &mut Prepared,
    assignment: Assignment,
    credit: Credit,
    contribution: &mut Contribution,
) -> Result<(), SessionError> {
    let next = Assignment { step: assignment.step.next(), ..assignment };
    prepared.prefetch(next);
    let mut push = (credit == Credit::Push).then(|| session.begin_push(assignment));
    prepared.train(assignment, contribution, &mut push)?;
    let push = match push {
        Some(push) => push,
        None => match await_credit(session, assignment)? {
            true => session.begin_push(assignment),
            false => return Ok(()),
        },
    };
    let outcome = session.finish_push(push, contribution)?;
    tracing::debug!("{assignment}: {outcome:?}");
    Ok(())
}

/// Asks until the contribution may be pushed (true) or is not wanted any more. Each question waits
/// at the server, so this does not spin.
fn await_credit(session: &Session, assignment: Assignment) -> Result<bool, PsError> {
    loop {
        match session.credit(assignment)? {
            Credit::Push => return Ok(true),
            Credit::Drop(reason) => {
                tracing::debug!("{assignment} is dropped: {reason}");
                return Ok(false);
            }
            Credit::Wait(reason) => tracing::debug!("{assignment} waits: {reason}"),
        }
    }
}
