//! The worker's life: connect, join, do what the server says, and join again when it must.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::bail;
use hw2_common::ids::{Assignment, BlockId, GlobalStep, ReplicaId};
use hw2_common::job::Job;
use hw2_common::trace;
use tokio_util::sync::CancellationToken;

use super::Tally;
use super::prepared::{ComputeError, Prepared, TRACK};
use crate::args::WorkerArgs;
use crate::ps::{
    Backoff, Contribution, Credit, Directive, EvaluationReport, Exchange, PsError, Session, reach,
};

/// Time between two looks at whether to stop, while something else is waited for.
const STOP_INTERVAL: Duration = Duration::from_millis(100);
/// A session that lasted this long was no failed attempt.
const SETTLED: Duration = Duration::from_secs(10);

/// How a worker's life ended in good order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The run is over: there is nothing left to do.
    RunFinished,
    /// This worker or its server was asked to stop: the run may go on with others.
    Early,
}

/// Why a session ended without an error.
enum End {
    /// The server told so, for this reason.
    Told { finished: bool, reason: String },
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
pub fn run(args: &WorkerArgs, stop: &CancellationToken) -> anyhow::Result<Ended> {
    let mut prepared: Option<Prepared> = None;
    let mut backoff = Backoff::default();
    loop {
        let patience = Duration::from_secs(args.patience_s);
        let Some((client, hello)) = reach(&args.ps, patience, stop)? else {
            return Ok(Ended::Early);
        };
        let kept = prepared.take().filter(|kept| kept.job == hello.job);
        let ready = match kept {
            Some(kept) => Some(kept),
            None => prepare(hello.job.clone(), args, stop)?,
        };
        let Some(ready) = ready else { return Ok(Ended::Early) };
        let ready = prepared.insert(ready);
        let session = match client.join(&hello, &ready.layout, &ready.credentials) {
            Ok(session) => session,
            Err(PsError::Stopped) => return Ok(Ended::Early),
            Err(error @ PsError::Refused(_)) => return Err(error.into()),
            Err(error) => {
                tracing::warn!("cannot join: {error}");
                backoff.wait();
                continue;
            }
        };
        tracing::info!("joined as {} of {}", session.worker(), hello.term);
        let joined = Instant::now();
        match serve(&session, ready, stop) {
            Ok(End::Told { finished, reason }) => {
                tracing::info!("the server ends: {reason}");
                // It does whether or not it still hears this.
                let _ = session.leave("the server ends");
                return Ok(if finished { Ended::RunFinished } else { Ended::Early });
            }
            Ok(End::Stopped) | Err(SessionError::Ps(PsError::Stopped)) => {
                tracing::info!("asked to stop: leaving");
                // Without it the server takes the leases back by itself.
                let _ = session.leave("asked to stop");
                return Ok(Ended::Early);
            }
            Err(SessionError::Ps(error @ PsError::Refused(_))) => {
                let _ = session.leave(&error.to_string());
                return Err(error.into());
            }
            Err(SessionError::Ps(error)) => tracing::warn!("joining again: {error}"),
            Err(SessionError::Compute(error)) => {
                // Another worker may be able to do what this one cannot.
                let _ = session.leave(&error.to_string());
                return Err(error.into());
            }
        }
        if joined.elapsed() >= SETTLED {
            backoff = Backoff::default();
        }
        backoff.wait();
    }
}

/// Prepares in a thread of its own, for that may take minutes; nothing when asked to stop
/// meanwhile.
fn prepare(
    job: Job,
    args: &WorkerArgs,
    stop: &CancellationToken,
) -> anyhow::Result<Option<Prepared>> {
    let (sender, prepared) = mpsc::channel();
    let args = args.clone();
    let thread = std::thread::Builder::new().name("hw2-prepare".into());
    // Nobody receives when the worker was asked to stop.
    thread.spawn(move || drop(sender.send(Prepared::new(job, &args))))?;
    loop {
        match prepared.recv_timeout(STOP_INTERVAL) {
            Ok(prepared) => return prepared.map(Some),
            Err(RecvTimeoutError::Timeout) if stop.is_cancelled() => return Ok(None),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => bail!("the preparation has panicked"),
        }
    }
}

/// Follows directives until the session ends.
fn serve(
    session: &Session,
    prepared: &mut Prepared,
    stop: &CancellationToken,
) -> Result<End, SessionError> {
    let mut contribution = session.contribution(&prepared.layout);
    let (mut directive, mut held) = Exchange::new(session, None).finish(&contribution, prepared)?;
    loop {
        let mut exchange = Exchange::new(session, held);
        match directive {
            Directive::Run { step, assignments } => {
                for work in works(step, &assignments) {
                    exchange.finish_push(&contribution)?;
                    if stop.is_cancelled() || session.is_lost() {
                        break;
                    }
                    let work = &work;
                    if !contribute(prepared, work, &mut contribution, &mut exchange)? {
                        break;
                    }
                }
            }
            Directive::Evaluate { step, blocks } => {
                for (place, &block) in blocks.iter().enumerate() {
                    if stop.is_cancelled() || session.is_lost() {
                        break;
                    }
                    evaluate(session, prepared, step, block, blocks.get(place + 1).copied())?;
                }
            }
            Directive::Wait(reason) => tracing::debug!("waiting: {reason}"),
            Directive::Rejoin(reason) => return Err(PsError::Rejoin(reason).into()),
            Directive::Stop { finished, reason } => return Ok(End::Told { finished, reason }),
        }
        // A server that has ended meanwhile has said so.
        if session.is_lost() && !exchange.is_answered() {
            return Err(PsError::Rejoin("the heartbeat was not answered".into()).into());
        }
        if stop.is_cancelled() {
            return Ok(End::Stopped);
        }
        let began = Instant::now();
        (directive, held) = exchange.finish(&contribution, prepared)?;
        trace::span(TRACK, began, None, || "wait for the server".into());
    }
}

/// What to compute, and what after it.
struct Work {
    assignment: Assignment,
    credit: Credit,
    next: Assignment,
    /// Whether the others were before it.
    is_last: bool,
}

/// The assignments in their order. After the last comes most likely the first of the next step,
/// since leases last.
fn works(step: GlobalStep, assignments: &[(ReplicaId, Credit)]) -> Vec<Work> {
    let work = |(place, (replica, credit)): (usize, &(ReplicaId, Credit))| Work {
        assignment: Assignment { step, replica: *replica },
        credit: credit.clone(),
        next: match assignments.get(place + 1) {
            Some((replica, _)) => Assignment { step, replica: *replica },
            None => Assignment { step: step.next(), replica: assignments[0].0 },
        },
        is_last: place + 1 == assignments.len(),
    };
    assignments.iter().enumerate().map(work).collect()
}

/// Counts the right answers on one block and reports them.
fn evaluate(
    session: &Session,
    prepared: &mut Prepared,
    step: GlobalStep,
    block: BlockId,
    next: Option<BlockId>,
) -> Result<(), SessionError> {
    let (tally, bad_images) = prepared.evaluate(block, next)?;
    let Tally { samples, top1, top5, loss_sum } = tally;
    let report = EvaluationReport { step, block, samples, top1, top5, loss_sum, bad_images };
    Ok(session.report(report)?)
}

/// Computes one assignment and pushes what is made of it, when there is credit; the push is still
/// to be finished. With the last one begin the question what comes next, and the pull of that. Says
/// whether it was wanted.
fn contribute(
    prepared: &mut Prepared,
    work: &Work,
    contribution: &mut Contribution,
    exchange: &mut Exchange<'_>,
) -> Result<bool, SessionError> {
    let Work { assignment, credit, next, is_last } = work;
    exchange.begin(*assignment, credit, *is_last);
    prepared.train(*assignment, *next, contribution, exchange)?;
    Ok(exchange.await_credit()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_without_a_server_stops_when_it_is_asked_to() {
        let args = WorkerArgs {
            ps: "unix:/nonexistent/hw2.sock".parse().unwrap(),
            device: crate::device_args::DeviceArgs::default(),
            data: None,
            threads: None,
            patience_s: u64::MAX,
            lifeline: false,
        };
        let stop = CancellationToken::new();
        let ended = std::thread::scope(|scope| {
            let worker = scope.spawn(|| run(&args, &stop));
            stop.cancel();
            worker.join().unwrap()
        });
        assert_eq!(ended.unwrap(), Ended::Early);
    }
}
