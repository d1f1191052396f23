//! A worker that computes nothing, or as if it did: what a round of push, commit and pull costs.

mod pace;

use std::time::{Duration, Instant};

use hw2_common::address::Addresses;
use hw2_common::config::Config;
use hw2_common::ids::{Assignment, BlockId, GlobalStep};
use hw2_common::layout::ParamLayout;
use tokio_util::sync::CancellationToken;

use crate::ps::{
    Contribution, Credentials, Directive, EvaluationReport, Exchange, PsError, Session, StepResult,
    reach,
};
use pace::Pace;

/// Servers of large vectors take their time to begin.
const PATIENCE: Duration = Duration::from_secs(300);
/// Every value of the gradient that is pushed: anything finite will do.
const GRADIENT: f32 = 1e-3;

/// Works for the servers of `ps` until their run ends, and tells the time of every round: from
/// one directive to the next. In each it does as if it computed for `computing`. The gradient stays
/// as it is, with its checksums, which a worker makes as backward finishes its buckets, and what is
/// pulled goes nowhere, where a worker copies it to its device: neither is in a round.
///
/// # Errors
/// There are no such servers, or they are lost.
pub fn drive(ps: &Addresses, computing: Duration) -> anyhow::Result<Vec<Duration>> {
    let reached = reach(ps, PATIENCE, &CancellationToken::new())?;
    let (client, hello) = reached.expect("nobody asks it to stop");
    let network = hello.job.network()?;
    let layout = ParamLayout::new(&network);
    let credentials = Credentials {
        layout_fingerprint: layout.fingerprint(),
        config_fingerprint: hello.job.config.fingerprint(),
        dataset_fingerprint: hello.job.dataset.fingerprint.clone(),
        numeric_kind: "bench wire".into(),
        label: format!("bench wire:{}", std::process::id()),
    };
    let session = client.join(&hello, &layout, &credentials)?;
    let contribution = constant_contribution(&session, &layout, &hello.job.config);
    let (buckets, mut rounds) = (layout.buckets(), Vec::new());
    let mut pace = Pace::new(&network, &layout, computing);
    let (mut directive, mut held) =
        Exchange::new(&session, None).finish(&contribution, &mut pace)?;
    loop {
        (directive, held) = match directive {
            Directive::Run { step, assignments } => {
                let began = Instant::now();
                let mut exchange = Exchange::new(&session, held);
                for (place, (replica, credit)) in assignments.iter().enumerate() {
                    let assignment = Assignment { step, replica: *replica };
                    exchange.finish_push(&contribution)?;
                    let is_last = place + 1 == assignments.len();
                    let next = match assignments.get(place + 1) {
                        Some((replica, _)) => Assignment { step, replica: *replica },
                        None => Assignment { step: step.next(), replica: assignments[0].0 },
                    };
                    exchange.begin(assignment, credit, is_last);
                    if !computing.is_zero() {
                        for (bucket, made) in buckets.iter().zip(pace.begin(assignment, next)) {
                            std::thread::sleep(made.saturating_duration_since(Instant::now()));
                            exchange.bucket_is_made(&contribution, bucket.start, &mut pace);
                        }
                    }
                    if !exchange.await_credit()? {
                        break;
                    }
                }
                let next = exchange.finish(&contribution, &mut pace)?;
                if matches!(next.0, Directive::Run { .. }) {
                    rounds.push(began.elapsed());
                }
                next
            }
            Directive::Evaluate { step, blocks } => {
                for block in blocks {
                    let samples = hello.job.eval_range(block).len() as u32;
                    session.report(EvaluationReport { step, block, samples, ..nothing() })?;
                }
                Exchange::new(&session, held).finish(&contribution, &mut pace)?
            }
            Directive::Wait(_) => Exchange::new(&session, held).finish(&contribution, &mut pace)?,
            Directive::Rejoin(reason) => return Err(PsError::Rejoin(reason).into()),
            Directive::Stop { .. } => {
                // The server ends whether or not it still hears this.
                let _ = session.leave("bench over");
                return Ok(rounds);
            }
        };
    }
}

/// A report of no right answer.
fn nothing() -> EvaluationReport {
    EvaluationReport {
        step: GlobalStep(0),
        block: BlockId(0),
        samples: 0,
        top1: 0,
        top5: 0,
        loss_sum: 0.0,
        bad_images: Vec::new(),
    }
}

fn constant_contribution(session: &Session, layout: &ParamLayout, config: &Config) -> Contribution {
    let mut contribution = session.contribution(layout);
    for bucket in layout.buckets() {
        let values = vec![GRADIENT; bucket.len()];
        contribution.set_bucket(bucket, &values);
    }
    contribution.statistics_mut().fill(1.0);
    contribution.set_result(StepResult { samples: config.batch_size, ..StepResult::default() });
    contribution
}
