//! The Control service: small messages, answered at once except for directives and credit.

use hw2_common::ids::{Term, WorkerId};
use hw2_common::shard::Shard;
use hw2_common::trace;
use hw2_proto::v1;
use hw2_proto::v1::control_server::Control;
use hw2_proto::v1::spans_report::Reporter;
use tonic::{Request, Response, Status};

use super::convert;
use super::desk::Desk;
use super::line::Line;
use super::waiting::Waiting;
use crate::coordinator::{
    BlockReport, Coordinator, Introduction, Now, Refusal, check_program, check_term,
};
use crate::driver::Driver;
use crate::trace::Process;
use crate::usage::Usage;

/// Serves Control.
#[derive(Clone)]
pub(super) struct ControlService {
    pub(super) desk: Desk,
}

type Answer<T> = Result<Response<T>, Status>;

impl ControlService {
    /// Has the coordinator handle a message of `term`.
    async fn event<T: Send + 'static>(
        &self,
        term: Term,
        event: impl FnOnce(&mut Coordinator, Now) -> T + Send + 'static,
    ) -> Result<T, Status> {
        let driver = self.desk.coordinating()?.driver;
        Ok(driver.call(move |driver| driver.in_term(term, event)).await??)
    }
}

#[tonic::async_trait]
impl Control for ControlService {
    async fn hello(&self, request: Request<v1::HelloRequest>) -> Answer<v1::HelloReply> {
        let request = request.into_inner();
        check_program(request.protocol_version, &request.build)?;
        let served = self.desk.served()?;
        let Shard { index, count } = served.shard;
        Ok(Response::new(v1::HelloReply {
            term: served.term.0,
            job_json: served.job_json.clone(),
            shard: index as u32,
            shards: count as u32,
        }))
    }

    async fn join(&self, request: Request<v1::JoinRequest>) -> Answer<v1::JoinReply> {
        let line = request.extensions().get::<Line>().expect("every connection has one").clone();
        let request = request.into_inner();
        let term = Term(request.term);
        let introduction = Introduction::from(request);
        let coordinating = self.desk.coordinating()?;
        let driver = coordinating.driver.clone();
        let join = move |coordinator: &mut Coordinator, now| {
            let worker = coordinator.join(now, introduction)?;
            // Here, where it is known even if the connection closes before the answer.
            line.on_hang_up(move || {
                driver.post(move |driver| {
                    // Its term may be over.
                    let _ =
                        driver.in_term(term, |coordinator, now| coordinator.hang_up(now, worker));
                });
            });
            Ok::<_, Refusal>(worker)
        };
        let worker = self.event(term, join).await??;
        Ok(Response::new(v1::JoinReply {
            worker: worker.0,
            heartbeat_interval_ms: coordinating.heartbeat_interval_ms,
            traces: coordinating.trace.is_some(),
        }))
    }

    async fn next(&self, request: Request<v1::NextRequest>) -> Answer<v1::Directive> {
        let v1::NextRequest { term, worker, pushing } = request.into_inner();
        let (term, worker) = (Term(term), WorkerId(worker));
        let pushing = pushing.map(|pushing| convert::assignment(pushing.step, pushing.replica));
        let begin = move |driver: &mut Driver| driver.next(term, worker, pushing);
        let directive =
            Waiting::begin(&self.desk.coordinating()?.driver, begin).await?.answer().await?;
        Ok(Response::new(directive.into()))
    }

    async fn heartbeat(
        &self,
        request: Request<v1::HeartbeatRequest>,
    ) -> Answer<v1::HeartbeatReply> {
        let v1::HeartbeatRequest { term, worker } = request.into_inner();
        let worker = WorkerId(worker);
        let heartbeat =
            move |coordinator: &mut Coordinator, now| coordinator.heartbeat(now, worker);
        let standing = self.event(Term(term), heartbeat).await?;
        Ok(Response::new(standing.into()))
    }

    async fn credit(&self, request: Request<v1::CreditRequest>) -> Answer<v1::CreditReply> {
        let v1::CreditRequest { term, worker, step, replica, computing } = request.into_inner();
        let (term, worker) = (Term(term), WorkerId(worker));
        let assignment = convert::assignment(step, replica);
        let begin = move |driver: &mut Driver| driver.credit(term, worker, assignment, computing);
        let credit =
            Waiting::begin(&self.desk.coordinating()?.driver, begin).await?.answer().await?;
        Ok(Response::new(credit.into()))
    }

    async fn report_evaluation(
        &self,
        request: Request<v1::EvaluationReport>,
    ) -> Answer<v1::EvaluationReply> {
        let request = request.into_inner();
        let term = Term(request.term);
        let report = BlockReport::from(request);
        self.event(term, |coordinator, now| coordinator.report(now, report)).await??;
        Ok(Response::new(v1::EvaluationReply {}))
    }

    async fn report_spans(&self, request: Request<v1::SpansReport>) -> Answer<v1::SpansReply> {
        let v1::SpansReport { term, reporter, spans } = request.into_inner();
        let term = Term(term);
        let (by, name) = match reporter {
            Some(Reporter::Worker(worker)) => {
                let worker = WorkerId(worker);
                let name = move |coordinator: &mut Coordinator, _| coordinator.name(worker);
                (Process::Worker(worker), self.event(term, name).await?)
            }
            Some(Reporter::Shard(index)) => {
                let served = self.desk.served()?;
                check_term(served.term, term)?;
                let Shard { count, .. } = served.shard;
                let shard = Shard { index: index as usize, count };
                if !(1..count).contains(&shard.index) {
                    return Err(Status::invalid_argument(format!("no follower is {shard}")));
                }
                (Process::Server(shard), format!("ps-server, {shard}"))
            }
            None => return Err(Status::invalid_argument("spans of nobody")),
        };
        if let Some(trace) = &self.desk.coordinating()?.trace {
            trace.add(by, name, spans.into_iter().map(convert::span).collect());
        }
        // A server without a trace has no clock for one, and nobody asks it.
        let now_ns = trace::now().unwrap_or_default().as_nanos() as u64;
        Ok(Response::new(v1::SpansReply { now_ns }))
    }

    async fn leave(&self, request: Request<v1::LeaveRequest>) -> Answer<v1::LeaveReply> {
        let v1::LeaveRequest { term, worker, reason } = request.into_inner();
        let worker = WorkerId(worker);
        self.event(Term(term), move |coordinator, now| coordinator.leave(now, worker, &reason))
            .await?;
        Ok(Response::new(v1::LeaveReply {}))
    }

    async fn status(&self, _: Request<v1::StatusRequest>) -> Answer<v1::StatusReply> {
        if let Some(phase) = self.desk.why_closed() {
            return Ok(Response::new(v1::StatusReply { phase, ..v1::StatusReply::default() }));
        }
        let driver = self.desk.coordinating()?.driver;
        let (status, run_dir, last_checkpoint) = driver.call(|driver| driver.status()).await?;
        Ok(Response::new(convert::status(
            status,
            &run_dir,
            last_checkpoint.as_deref(),
            Usage::now(),
        )))
    }
}
