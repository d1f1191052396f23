//! The Control service: small messages, answered at once except for credit.

use hw2_common::ids::{Term, WorkerId};
use hw2_proto::v1;
use hw2_proto::v1::control_server::Control;
use tonic::{Request, Response, Status};

use super::convert;
use super::pull::Forget;
use crate::coordinator::{BlockReport, Introduction, check_program};
use crate::driver::Handle;

/// Serves Control.
#[derive(Clone)]
pub(super) struct ControlService {
    pub(super) driver: Handle,
    pub(super) term: Term,
    pub(super) job_json: String,
    pub(super) heartbeat_interval_ms: u32,
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Control for ControlService {
    async fn hello(&self, request: Request<v1::HelloRequest>) -> Answer<v1::HelloReply> {
        let request = request.into_inner();
        check_program(request.protocol_version, &request.build)?;
        let (term, job_json) = (self.term.0, self.job_json.clone());
        Ok(Response::new(v1::HelloReply { term, job_json }))
    }

    async fn join(&self, request: Request<v1::JoinRequest>) -> Answer<v1::JoinReply> {
        let request = request.into_inner();
        let term = Term(request.term);
        let introduction = Introduction::from(request);
        let worker = self
            .driver
            .call(move |driver| {
                driver.coordinator.check_term(term)?;
                let now = driver.now();
                driver.coordinator.join(now, introduction)
            })
            .await??;
        let heartbeat_interval_ms = self.heartbeat_interval_ms;
        Ok(Response::new(v1::JoinReply { worker: worker.0, heartbeat_interval_ms }))
    }

    async fn heartbeat(
        &self,
        request: Request<v1::HeartbeatRequest>,
    ) -> Answer<v1::HeartbeatReply> {
        let v1::HeartbeatRequest { term, worker } = request.into_inner();
        let standing = self
            .driver
            .call(move |driver| {
                driver.coordinator.check_term(Term(term))?;
                let now = driver.now();
                Ok::<_, Status>(driver.coordinator.heartbeat(now, WorkerId(worker)))
            })
            .await??;
        Ok(Response::new(standing.into()))
    }

    async fn credit(&self, request: Request<v1::CreditRequest>) -> Answer<v1::CreditReply> {
        let v1::CreditRequest { term, worker, step, replica } = request.into_inner();
        let (waiter, wait) = self
            .driver
            .call(move |driver| {
                driver.coordinator.check_term(Term(term))?;
                driver.credit(WorkerId(worker), convert::assignment(step, replica))
            })
            .await??;
        let mut forget = Forget::new(&self.driver, waiter);
        let credit = wait.await.map_err(|_| crate::driver::Gone)?;
        forget.answered();
        Ok(Response::new(credit.into()))
    }

    async fn report_evaluation(
        &self,
        request: Request<v1::EvaluationReport>,
    ) -> Answer<v1::EvaluationReply> {
        let request = request.into_inner();
        let term = Term(request.term);
        let report = BlockReport::from(request);
        self.driver
            .call(move |driver| {
                driver.coordinator.check_term(term)?;
                let now = driver.now();
                driver.coordinator.report(now, report)
            })
            .await??;
        Ok(Response::new(v1::EvaluationReply {}))
    }

    async fn leave(&self, request: Request<v1::LeaveRequest>) -> Answer<v1::LeaveReply> {
        let v1::LeaveRequest { term, worker, reason } = request.into_inner();
        self.driver
            .call(move |driver| {
                driver.coordinator.check_term(Term(term))?;
                let now = driver.now();
                driver.coordinator.leave(now, WorkerId(worker), &reason);
                Ok::<_, Status>(())
            })
            .await??;
        Ok(Response::new(v1::LeaveReply {}))
    }

    async fn status(&self, _: Request<v1::StatusRequest>) -> Answer<v1::StatusReply> {
        let (status, run_dir, last_checkpoint) = self.driver.call(|driver| driver.status()).await?;
        Ok(Response::new(convert::status(status, &run_dir, last_checkpoint.as_deref())))
    }
}
