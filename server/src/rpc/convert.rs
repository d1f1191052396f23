//! Messages from and into the coordinator's types.

use std::path::Path;
use std::time::Duration;

use hw2_common::ids::{Assignment, BlockId, GlobalStep, ReplicaId, WorkerId};
use hw2_common::state::Evaluation;
use hw2_common::trace::Span;
use hw2_proto::v1;
use tonic::Status as GrpcStatus;

use crate::coordinator::{
    BlockReport, Counts, Credit, Directive, Introduction, Outcome, Refusal, Standing, Status,
    WorkerStatus,
};
use crate::handle::Gone;
use crate::usage::Usage;

impl From<Refusal> for GrpcStatus {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Rejoin(text) => Self::aborted(text),
            Refusal::Invalid(text) => Self::invalid_argument(text),
            Refusal::NotNow(text) => Self::failed_precondition(text),
            Refusal::Full(text) => Self::resource_exhausted(text),
        }
    }
}

impl From<Gone> for GrpcStatus {
    fn from(Gone: Gone) -> Self {
        Self::unavailable("the server is ending")
    }
}

impl From<v1::JoinRequest> for Introduction {
    fn from(request: v1::JoinRequest) -> Self {
        Self {
            protocol_version: request.protocol_version,
            build: request.build,
            layout_fingerprint: request.layout_fingerprint,
            config_fingerprint: request.config_fingerprint,
            dataset_fingerprint: request.dataset_fingerprint,
            numeric_kind: request.numeric_kind,
            label: request.label,
        }
    }
}

/// Something that a worker did, in the time of the server's trace.
pub(super) fn span(span: v1::Span) -> Span {
    let v1::Span { track, name, start_ns, end_ns, step } = span;
    let [start, end] = [start_ns, end_ns].map(Duration::from_nanos);
    Span { track, name, start, end, step: step.map(GlobalStep) }
}

impl From<v1::EvaluationReport> for BlockReport {
    fn from(report: v1::EvaluationReport) -> Self {
        let v1::EvaluationReport { samples, top1, top5, loss_sum, .. } = report;
        Self {
            worker: WorkerId(report.worker),
            step: GlobalStep(report.step),
            block: BlockId(report.block),
            counts: Counts { samples, top1, top5, loss_sum },
            bad_images: report.bad_images,
        }
    }
}

impl From<Standing> for v1::HeartbeatReply {
    fn from(standing: Standing) -> Self {
        use v1::heartbeat_reply::Standing as Wire;
        let (standing, reason) = match standing {
            Standing::KeepGoing => (Wire::KeepGoing, String::new()),
            Standing::Rejoin(reason) => (Wire::Rejoin, reason),
            Standing::Stop(reason) => (Wire::Stop, reason),
        };
        Self { standing: standing.into(), reason }
    }
}

impl From<Credit> for v1::CreditReply {
    fn from(credit: Credit) -> Self {
        use v1::credit_reply::Answer;
        let (answer, reason) = match credit {
            Credit::Push => (Answer::Push, String::new()),
            Credit::Wait(reason) => (Answer::Wait, reason),
            Credit::Drop(reason) => (Answer::Drop, reason),
        };
        Self { answer: answer.into(), reason }
    }
}

impl From<Outcome> for v1::PushReply {
    fn from(outcome: Outcome) -> Self {
        use v1::push_reply::Outcome as Wire;
        let outcome = match outcome {
            Outcome::Received => Wire::Received,
            Outcome::Counted => Wire::Counted,
            Outcome::Duplicate => Wire::Duplicate,
            Outcome::Dropped => Wire::Dropped,
        };
        Self { outcome: outcome.into() }
    }
}

impl From<Directive> for v1::Directive {
    fn from(directive: Directive) -> Self {
        use v1::directive::Directive as Wire;
        let directive = match directive {
            Directive::Run { step, assignments } => {
                let assignments = assignments.into_iter().map(|leased| v1::RunAssignment {
                    replica: leased.replica.0,
                    credit: leased.credit,
                });
                Wire::Run(v1::Run { step: step.0, assignments: assignments.collect() })
            }
            Directive::Evaluate { step, blocks } => Wire::Evaluate(v1::Evaluate {
                step: step.0,
                blocks: blocks.into_iter().map(|block| block.0).collect(),
            }),
            Directive::Wait(reason) => Wire::Wait(v1::Wait { reason }),
            Directive::Rejoin(reason) => Wire::Rejoin(v1::Rejoin { reason }),
            Directive::Stop { finished, reason } => Wire::Stop(v1::Stop { reason, finished }),
        };
        Self { directive: Some(directive) }
    }
}

/// The assignment that a message names.
pub(super) fn assignment(step: u64, replica: u32) -> Assignment {
    Assignment { step: GlobalStep(step), replica: ReplicaId(replica) }
}

/// The status reply.
pub(super) fn status(
    status: Status,
    run_dir: &Path,
    last_checkpoint: Option<&Path>,
    usage: Usage,
) -> v1::StatusReply {
    let text = |path: &Path| path.display().to_string();
    v1::StatusReply {
        term: status.term.0,
        global_step: status.global_step.0,
        max_steps: status.max_steps,
        phase: status.phase.into(),
        workers: status.workers.into_iter().map(worker_status).collect(),
        waiting_for: status.waiting_for,
        waiting_ms: status.waiting.as_millis() as u64,
        learning_rate: status.learning_rate,
        loss: status.last_step.map(|step| step.loss),
        train_top1: status.last_step.map(|step| step.top1),
        images_per_second: status.images_per_second,
        last_evaluation: status.last_evaluation.map(evaluation_status),
        best_evaluation: status.best_evaluation.map(evaluation_status),
        releases: status.releases,
        replayed_steps: status.replayed_steps,
        run_dir: text(run_dir),
        last_checkpoint: last_checkpoint.map(text).unwrap_or_default(),
        bad_images: status.bad_images,
        replicas: status.replicas,
        batch_size: status.batch_size,
        stop_reason: status.stop_reason,
        cpu_ms: usage.cpu.as_millis() as u64,
        peak_memory_bytes: usage.peak_memory_bytes,
    }
}

fn worker_status(worker: WorkerStatus) -> v1::WorkerStatus {
    v1::WorkerStatus {
        worker: worker.worker.0,
        label: worker.label,
        leased_replicas: worker.leased_replicas,
        owed_replicas: worker.owed_replicas,
        leased_blocks: worker.leased_blocks,
        contributions: worker.contributions,
        silent_ms: worker.silent.as_millis() as u64,
    }
}

fn evaluation_status(evaluation: Evaluation) -> v1::EvaluationStatus {
    let Evaluation { step, samples, top1, top5, loss } = evaluation;
    v1::EvaluationStatus { step: step.0, samples, top1, top5, loss }
}
