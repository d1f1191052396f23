//! A worker's membership: from join to leave, or to the first error that ends it.

use std::future::poll_fn;
use std::pin::pin;
use std::time::Duration;

use futures_util::stream::Stream;
use hw2_common::grpc::{self, Incoming, Parcel};
use hw2_common::ids::{Assignment, BlockId, GlobalStep, Term, WorkerId};
use hw2_common::trace;
use hw2_proto::v1;
use hw2_proto::v1::heartbeat_reply::Standing;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tower_service::Service;

use super::client::timed;
use super::spans::Spans;
use super::{
    Client, Contribution, Credit, Destination, Directive, Held, Outcome, PsError, Pull, Push,
};

/// Times a push is sent before its connection counts as lost.
const PUSH_ATTEMPTS: u32 = 3;

/// Time for the last spans of a trace when a worker leaves.
const LAST_SPANS: Duration = Duration::from_secs(1);

/// Joined. Dropping it ends the heartbeats; the server then takes the leases back.
pub struct Session {
    client: Client,
    term: Term,
    worker: WorkerId,
    /// Cancelled when the server no longer counts on this worker, or cannot be asked.
    lost: CancellationToken,
    /// If the server wants to know what is done when.
    spans: Option<Spans>,
}

/// The counts of one block of the evaluation set.
#[derive(Clone, Debug, PartialEq)]
pub struct EvaluationReport {
    /// Whose EMA weights were used.
    pub step: GlobalStep,
    /// Which images.
    pub block: BlockId,
    /// Images.
    pub samples: u32,
    /// Images whose label has the largest logit.
    pub top1: u32,
    /// Images whose label is among the five largest.
    pub top5: u32,
    /// Sum of the cross-entropies, in index order.
    pub loss_sum: f64,
    /// Images that could not be decoded and were replaced.
    pub bad_images: Vec<String>,
}

impl Session {
    pub(super) fn begin(
        client: Client,
        term: Term,
        worker: WorkerId,
        every: Duration,
        traces: bool,
    ) -> Self {
        let lost = CancellationToken::new();
        let spans = traces.then(|| Spans::begin(client.control.clone(), term, worker));
        let session = Self { client, term, worker, lost, spans };
        let beat = heartbeats(&session, every);
        session.client.control_io.spawn(beat);
        if let Some(spans) = session.spans.clone() {
            let reports = session.lost.clone().run_until_cancelled_owned(spans.report_every(every));
            session.client.control_io.spawn(reports);
        }
        session
    }

    /// The id the server gave.
    pub fn worker(&self) -> WorkerId {
        self.worker
    }

    /// Whether the server no longer counts on this worker, so that going on is a waste.
    pub fn is_lost(&self) -> bool {
        self.lost.is_cancelled()
    }

    /// Waits until there is something to do; afterwards `destination`, whose vectors were those of
    /// `held`, has all that it needs.
    ///
    /// # Errors
    /// Any error ends the session, and with it the use of what was held.
    pub fn pull(
        &self,
        held: Held,
        destination: &mut impl Destination,
    ) -> Result<(Directive, Held), PsError> {
        self.finish_pull(self.begin_pull(held, None), destination)
    }

    /// Waits for the end of a pull; afterwards `destination` has all that the directive needs.
    ///
    /// # Errors
    /// As [`Self::pull`].
    pub fn finish_pull(
        &self,
        pull: Pull,
        destination: &mut impl Destination,
    ) -> Result<(Directive, Held), PsError> {
        self.client.data_io.call(&self.client.stop, pull.finish(destination))
    }

    /// As [`Self::finish_push`] and then [`Self::pull`], at once.
    ///
    /// # Errors
    /// As [`Self::pull`].
    pub fn push_and_pull(
        &self,
        mut push: Push,
        whole: &Contribution,
        pull: Pull,
        destination: &mut impl Destination,
    ) -> Result<(Directive, Held), PsError> {
        // Before the destination computes.
        push.send_all(whole);
        self.client.data_io.call(&self.client.stop, async {
            let mut pulling = pin!(pull.finish(destination));
            let mut pushing = pin!(self.pushing(push, whole));
            tokio::select! {
                // A server that ends says so before it cuts off the push.
                biased;
                pulled = &mut pulling => {
                    let (directive, held) = pulled?;
                    // A server that ends, or knows this worker no more, need not take the push.
                    if !matches!(directive, Directive::Stop { .. } | Directive::Rejoin(_)) {
                        pushing.await?;
                    }
                    Ok((directive, held))
                }
                pushed = &mut pushing => {
                    pushed?;
                    pulling.await
                }
            }
        })
    }

    /// Asks what to do once `pushing` is in; what the server makes of it meanwhile is on its way
    /// from now on, and takes the place of what was `held`. Chunks are received and checked on the
    /// thread of the connection.
    pub fn begin_pull(&self, held: Held, pushing: Option<Assignment>) -> Pull {
        let pushing = pushing.map(|assignment| v1::Pushing {
            step: assignment.step.0,
            replica: assignment.replica.0,
        });
        let request = v1::PullRequest {
            term: self.term.0,
            worker: self.worker.0,
            weights_step: held.weights_step().map(|step| step.0),
            ema_step: held.ema_step().map(|step| step.0),
            pushing,
        };
        let trace = trace::Buckets::new(held.cut(), "pull", None, || "pull".into());
        Pull::begin(&self.client.data_io, self.client.data.clone(), request, held, trace)
    }

    /// Asks until `assignment` may be pushed (true) or is not wanted any more. Each question waits
    /// at the server, so this does not spin.
    ///
    /// # Errors
    /// Any error ends the session.
    pub fn await_credit(&self, assignment: Assignment) -> Result<bool, PsError> {
        loop {
            match self.credit(assignment)? {
                Credit::Push => return Ok(true),
                Credit::Drop(reason) => {
                    tracing::debug!("{assignment} is dropped: {reason}");
                    return Ok(false);
                }
                Credit::Wait(reason) => tracing::debug!("{assignment} waits: {reason}"),
            }
        }
    }

    fn credit(&self, assignment: Assignment) -> Result<Credit, PsError> {
        let request = v1::CreditRequest {
            term: self.term.0,
            worker: self.worker.0,
            step: assignment.step.0,
            replica: assignment.replica.0,
        };
        let mut control = self.client.control.clone();
        self.client.control_io.call(&self.client.stop, async move {
            Ok(Credit::from(control.credit(timed(request)).await?.into_inner()))
        })
    }

    /// Opens a push for which there is credit.
    pub fn begin_push(&self, assignment: Assignment) -> Push {
        let head = Contribution::head(self.term.0, self.worker.0, assignment);
        Push::begin(&self.client.data_io, self.client.data.clone(), head, assignment)
    }

    /// Sends what `push` has not sent yet and waits for the acknowledgement. If the connection
    /// breaks or the push is refused, the whole contribution is sent again: pushes are idempotent.
    ///
    /// # Errors
    /// Any error ends the session.
    pub fn finish_push(&self, push: Push, whole: &Contribution) -> Result<Outcome, PsError> {
        self.client.data_io.call(&self.client.stop, self.pushing(push, whole))
    }

    async fn pushing(&self, mut push: Push, whole: &Contribution) -> Result<Outcome, PsError> {
        for attempt in 1.. {
            push.send_all(whole);
            let assignment = push.assignment();
            match push.reply().await {
                Ok(outcome) => {
                    tracing::debug!("{assignment}: {outcome:?}");
                    return Ok(outcome);
                }
                // Refused it may be for what happened to it on the way.
                Err(PsError::Lost(reason) | PsError::Refused(reason))
                    if attempt < PUSH_ATTEMPTS && !self.is_lost() =>
                {
                    tracing::warn!("push of {assignment} is sent again: {reason}");
                    push = self.begin_push(assignment);
                }
                Err(error) => return Err(error),
            }
        }
        unreachable!("the last attempt returns")
    }

    /// Reports the counts of one block.
    ///
    /// # Errors
    /// Any error ends the session.
    pub fn report(&self, report: EvaluationReport) -> Result<(), PsError> {
        let request = v1::EvaluationReport {
            term: self.term.0,
            worker: self.worker.0,
            step: report.step.0,
            block: report.block.0,
            samples: report.samples,
            top1: report.top1,
            top5: report.top5,
            loss_sum: report.loss_sum,
            bad_images: report.bad_images,
        };
        let mut control = self.client.control.clone();
        self.client.control_io.call(&self.client.stop, async move {
            control.report_evaluation(timed(request)).await?;
            Ok(())
        })
    }

    /// Gives every lease back, even while this process is being stopped.
    ///
    /// # Errors
    /// The server could not be told; it will take the leases back by itself.
    pub fn leave(self, reason: &str) -> Result<(), PsError> {
        let reason = reason.to_owned();
        let request = v1::LeaveRequest { term: self.term.0, worker: self.worker.0, reason };
        let (mut control, spans) = (self.client.control.clone(), self.spans.clone());
        self.client.control_io.call(&CancellationToken::new(), async move {
            if let Some(spans) = spans {
                // Whoever leaves has better to do than to complain, or to wait.
                let _ = tokio::time::timeout(LAST_SPANS, spans.report()).await;
            }
            control.leave(timed(request)).await?;
            Ok(())
        })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.lost.cancel();
    }
}

/// Calls a method of Data.
pub(super) async fn call<S>(
    mut data: Channel,
    path: &'static str,
    messages: S,
) -> Result<Incoming, PsError>
where
    S: Stream<Item = Parcel> + Send + Unpin + 'static,
{
    poll_fn(|context| data.poll_ready(context)).await?;
    let response = data.call(grpc::request(path, messages)).await?;
    Ok(grpc::answer(response)?)
}

/// Sends heartbeats until the session is lost, and notices when it is.
fn heartbeats(session: &Session, every: Duration) -> impl Future<Output = ()> + Send + 'static {
    let request = v1::HeartbeatRequest { term: session.term.0, worker: session.worker.0 };
    let mut control = session.client.control.clone();
    let lost = session.lost.clone();
    async move {
        let _lost = lost.clone().drop_guard();
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = lost.cancelled() => return,
            }
            match control.heartbeat(timed(request)).await {
                // A run that has ended says so in the next pull.
                Ok(reply) if reply.get_ref().standing() != Standing::Rejoin => {}
                Ok(reply) => return tracing::debug!("heartbeat: {}", reply.get_ref().reason),
                Err(status) => return tracing::debug!("heartbeat: {}", status.message()),
            }
        }
    }
}
