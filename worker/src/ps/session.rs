//! A worker's membership: from join to leave, or to the first error that ends it.

use std::future::poll_fn;
use std::time::Duration;

use futures_util::stream::Stream;
use hw2_common::grpc::{self, Incoming, Parcel};
use hw2_common::ids::{Assignment, BlockId, GlobalStep, Term, VersionId, WorkerId};
use hw2_common::job::Job;
use hw2_common::layout::ParamLayout;
use hw2_common::spans::Spans;
use hw2_proto::v1;
use hw2_proto::v1::control_client::ControlClient;
use hw2_proto::v1::heartbeat_reply::Standing;
use hw2_proto::v1::spans_report::Reporter;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::Channel;
use tower_service::Service;

use super::client::timed;
use super::exchange::{Asked, CreditAsked};
use super::push::PartPush;
use super::servers::Server;
use super::{Client, Contribution, Credit, Directive, Hello, PsError, Pull, Push};

/// Times a push is sent before its connection counts as lost.
const PUSH_ATTEMPTS: u32 = 3;

/// Joined. Dropping it ends the heartbeats; the server then takes the leases back.
pub struct Session {
    client: Client,
    /// Each with the part of the vectors that it has, in their order.
    servers: Vec<Server>,
    job: Job,
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
    /// A membership of `worker`, which shall send heartbeats `every` so often.
    pub(super) fn begin(
        client: Client,
        servers: Vec<Server>,
        hello: &Hello,
        worker: WorkerId,
        every: Duration,
        traces: bool,
    ) -> Self {
        let (lost, term) = (CancellationToken::new(), hello.term);
        let spans =
            traces.then(|| Spans::begin(client.control.clone(), term, Reporter::Worker(worker.0)));
        let job = hello.job.clone();
        let session = Self { client, servers, job, term, worker, lost, spans };
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

    /// Room for contributions, of which `layout` is the vectors'.
    pub fn contribution(&self, layout: &ParamLayout) -> Contribution {
        Contribution::new(layout, self.job.config.wire, self.servers.len())
    }

    /// Whether the server no longer counts on this worker, so that going on is a waste.
    pub fn is_lost(&self) -> bool {
        self.lost.is_cancelled()
    }

    /// Whether the step is one that is evaluated.
    pub(super) fn eval_due(&self, step: GlobalStep) -> bool {
        self.job.eval_due(step)
    }

    /// Runs `future` here until it is done or the worker is asked to stop.
    pub(super) fn call<T>(
        &self,
        future: impl Future<Output = Result<T, PsError>>,
    ) -> Result<T, PsError> {
        self.client.control_io.call(&self.client.stop, future)
    }

    /// Asks what to do once `pushing` is in.
    pub(super) fn ask(&self, pushing: Option<Assignment>) -> Asked {
        let pushing = pushing.map(|assignment| v1::Pushing {
            step: assignment.step.0,
            replica: assignment.replica.0,
        });
        let request = v1::NextRequest { term: self.term.0, worker: self.worker.0, pushing };
        // What it needs comes the same way: there is no thread more to wake.
        let coordinator = &self.servers[0];
        let mut control = ControlClient::new(coordinator.data.clone());
        AbortOnDropHandle::new(coordinator.io.spawn(async move {
            // It may take as long as a step, and the server answers in any case.
            Directive::try_from(control.next(request).await?.into_inner())
        }))
    }

    /// From now on `version` is on its way, as far as there is something of it.
    pub(super) fn begin_pull(&self, version: VersionId) -> Pull {
        Pull::begin(&self.servers, self.term, version)
    }

    /// Asks until `assignment`, which may still be `computing`, may be pushed (true) or is not
    /// wanted any more. Each question waits at the server, so this does not spin.
    pub(super) fn ask_credit(&self, assignment: Assignment, computing: bool) -> CreditAsked {
        let request = v1::CreditRequest {
            term: self.term.0,
            worker: self.worker.0,
            step: assignment.step.0,
            replica: assignment.replica.0,
            computing,
        };
        let mut control = self.client.control.clone();
        AbortOnDropHandle::new(self.client.control_io.spawn(async move {
            loop {
                match Credit::from(control.credit(timed(request)).await?.into_inner()) {
                    Credit::Push => return Ok(true),
                    Credit::Drop(reason) => {
                        tracing::debug!("{assignment} is dropped: {reason}");
                        return Ok(false);
                    }
                    Credit::Wait(reason) => tracing::debug!("{assignment} waits: {reason}"),
                }
            }
        }))
    }

    /// Opens a push for which there is credit.
    pub(super) fn begin_push(&self, assignment: Assignment) -> Push {
        let begin = |server| self.begin_part(server, assignment);
        Push::new(assignment, self.servers.iter().map(begin).collect())
    }

    fn begin_part(&self, server: &Server, assignment: Assignment) -> PartPush {
        let head = Contribution::head(self.term.0, self.worker.0, assignment);
        PartPush::begin(server, head, assignment.step)
    }

    /// Sends what `push` has not sent yet and waits for the acknowledgements. If a connection
    /// breaks or a server refuses its part, all of that is sent again: pushes are idempotent.
    ///
    /// # Errors
    /// Any error ends the session.
    pub(super) async fn finish_push(
        &self,
        push: Push,
        whole: &Contribution,
    ) -> Result<(), PsError> {
        let assignment = push.assignment();
        let parts = push.into_parts().into_iter().zip(&self.servers);
        let all = parts.map(|(part, server)| self.finish_part(part, server, assignment, whole));
        futures_util::future::try_join_all(all).await?;
        Ok(())
    }

    async fn finish_part(
        &self,
        mut part: PartPush,
        server: &Server,
        assignment: Assignment,
        whole: &Contribution,
    ) -> Result<(), PsError> {
        for attempt in 1.. {
            part.send_all(whole);
            match part.reply().await {
                Ok(outcome) => {
                    tracing::debug!("{assignment}{}: {outcome:?}", server.holding.label());
                    return Ok(());
                }
                // Refused it may be for what happened to it on the way.
                Err(PsError::Lost(reason) | PsError::Refused(reason))
                    if attempt < PUSH_ATTEMPTS && !self.is_lost() =>
                {
                    tracing::warn!("push of {assignment} is sent again: {reason}");
                    part = self.begin_part(server, assignment);
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
                spans.report_last().await;
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
                // A run that has ended says so in the next directive.
                Ok(reply) if reply.get_ref().standing() != Standing::Rejoin => {}
                Ok(reply) => return tracing::debug!("heartbeat: {}", reply.get_ref().reason),
                Err(status) => return tracing::debug!("heartbeat: {}", status.message()),
            }
        }
    }
}
