//! `hw2 status`: what a running server does, and whom it waits for.

use std::time::Duration;

use clap::Args;
use hw2_common::address::Address;
use hw2_proto::v1::{EvaluationStatus, StatusReply, WorkerStatus};
use serde::Serialize;

use crate::control::Control;
use crate::output::{self, Column, Report, Table, count, duration, fraction, rate, significant};

/// Shows what a running server does: step, workers and their leases, who is waited for
#[derive(Args, Debug)]
pub(crate) struct StatusArgs {
    /// The server: host:port or unix:PATH
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:50051")]
    ps: Address,

    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

/// Asks once and prints the answer.
pub(crate) fn run(args: &StatusArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let reply = runtime.block_on(async { Control::new(&args.ps)?.status().await })?;
    output::report(&Status::from(reply), args.json)
}

/// A server's answer; the fields are those of `StatusReply` in ps.proto.
#[derive(Debug, Serialize)]
struct Status {
    term: u64,
    phase: String,
    global_step: u64,
    max_steps: u64,
    replicas: u32,
    batch_size: u32,
    loss: Option<f64>,
    train_top1: Option<f64>,
    images_per_second: f64,
    learning_rate: f64,
    waiting_for: String,
    waiting_ms: u64,
    workers: Vec<Worker>,
    last_evaluation: Option<Evaluation>,
    best_evaluation: Option<Evaluation>,
    releases: u64,
    replayed_steps: u64,
    bad_images: u64,
    run_dir: String,
    last_checkpoint: String,
    stop_reason: String,
    cpu_ms: u64,
    peak_memory_bytes: u64,
}

#[derive(Debug, Serialize)]
struct Worker {
    worker: u64,
    label: String,
    leased_replicas: Vec<u32>,
    owed_replicas: Vec<u32>,
    leased_blocks: Vec<u32>,
    contributions: u64,
    silent_ms: u64,
}

#[derive(Debug, Serialize)]
struct Evaluation {
    step: u64,
    samples: u32,
    top1: u32,
    top5: u32,
    loss: f64,
}

impl From<StatusReply> for Status {
    fn from(reply: StatusReply) -> Self {
        Self {
            term: reply.term,
            phase: reply.phase,
            global_step: reply.global_step,
            max_steps: reply.max_steps,
            replicas: reply.replicas,
            batch_size: reply.batch_size,
            loss: reply.loss,
            train_top1: reply.train_top1,
            images_per_second: reply.images_per_second,
            learning_rate: reply.learning_rate,
            waiting_for: reply.waiting_for,
            waiting_ms: reply.waiting_ms,
            workers: reply.workers.into_iter().map(Worker::from).collect(),
            last_evaluation: reply.last_evaluation.map(Evaluation::from),
            best_evaluation: reply.best_evaluation.map(Evaluation::from),
            releases: reply.releases,
            replayed_steps: reply.replayed_steps,
            bad_images: reply.bad_images,
            run_dir: reply.run_dir,
            last_checkpoint: reply.last_checkpoint,
            stop_reason: reply.stop_reason,
            cpu_ms: reply.cpu_ms,
            peak_memory_bytes: reply.peak_memory_bytes,
        }
    }
}

impl From<WorkerStatus> for Worker {
    fn from(worker: WorkerStatus) -> Self {
        Self {
            worker: worker.worker,
            label: worker.label,
            leased_replicas: worker.leased_replicas,
            owed_replicas: worker.owed_replicas,
            leased_blocks: worker.leased_blocks,
            contributions: worker.contributions,
            silent_ms: worker.silent_ms,
        }
    }
}

impl From<EvaluationStatus> for Evaluation {
    fn from(evaluation: EvaluationStatus) -> Self {
        Self {
            step: evaluation.step,
            samples: evaluation.samples,
            top1: evaluation.top1,
            top5: evaluation.top5,
            loss: evaluation.loss,
        }
    }
}

impl Report for Status {
    fn text(&self) -> String {
        if self.max_steps == 0 {
            // It has no state yet.
            return self.phase.clone();
        }
        let mut lines = vec![
            format!("{}, step {} of {}", self.phase, self.global_step, self.max_steps),
            self.figures(),
        ];
        lines.extend(self.last_evaluation.as_ref().map(|found| format!("last {}", found.text())));
        lines.extend(self.best_evaluation.as_ref().map(|found| format!("best {}", found.text())));
        if !self.waiting_for.is_empty() {
            let since = duration(Duration::from_millis(self.waiting_ms));
            lines.push(format!("waits for {} since {since}", self.waiting_for));
        }
        if self.releases + self.replayed_steps + self.bad_images > 0 {
            lines.push(format!(
                "{} leases given to another worker, {} steps replayed, {} bad images replaced",
                self.releases, self.replayed_steps, self.bad_images
            ));
        }
        lines.push(match self.last_checkpoint.as_str() {
            "" => format!("run {}, no checkpoint yet", self.run_dir),
            path => format!("newest checkpoint {path}"),
        });
        if !self.stop_reason.is_empty() {
            lines.push(format!("ended: {}", self.stop_reason));
        }
        lines.push(match self.workers.is_empty() {
            true => format!("no workers (term {})", self.term),
            false => format!("\n{}", self.worker_table()),
        });
        lines.join("\n")
    }
}

impl Status {
    fn figures(&self) -> String {
        let last_step = match (self.loss, self.train_top1) {
            (Some(loss), Some(top1)) => format!("loss {loss:.3}, train acc {top1:.3}, "),
            _ => String::new(),
        };
        format!(
            "{last_step}{} images/s, lr {}, {} replicas x {} images",
            rate(self.images_per_second),
            significant(self.learning_rate),
            self.replicas,
            self.batch_size
        )
    }

    fn worker_table(&self) -> Table {
        let mut table = Table::new([
            Column::Right("worker"),
            Column::Left("leases"),
            Column::Left("owes"),
            Column::Left("blocks"),
            Column::Right("contributions"),
            Column::Right("silent"),
            Column::Left("where"),
        ]);
        for worker in &self.workers {
            table.row([
                worker.worker.to_string(),
                list(&worker.leased_replicas),
                list(&worker.owed_replicas),
                list(&worker.leased_blocks),
                count(worker.contributions),
                format!("{:.1} s", worker.silent_ms as f64 / 1e3),
                worker.label.clone(),
            ]);
        }
        table
    }
}

impl Evaluation {
    fn text(&self) -> String {
        let Self { step, samples, top1, top5, loss } = self;
        let (first, five) = (fraction(*top1, *samples), fraction(*top5, *samples));
        format!("evaluation: step {step}, top-1 {first}, top-5 {five}, loss {loss:.3}")
    }
}

fn list(ids: &[u32]) -> String {
    if ids.is_empty() {
        return "-".into();
    }
    ids.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply() -> StatusReply {
        StatusReply {
            term: 7,
            phase: "training".into(),
            global_step: 120,
            max_steps: 900,
            replicas: 2,
            batch_size: 32,
            loss: Some(0.5123),
            train_top1: Some(0.8125),
            images_per_second: 412.6,
            learning_rate: 1e-3,
            waiting_for: "worker 2 for replica 1".into(),
            waiting_ms: 61_000,
            last_evaluation: Some(EvaluationStatus {
                step: 100,
                samples: 500,
                top1: 420,
                top5: 498,
                loss: 0.45,
            }),
            workers: vec![WorkerStatus {
                worker: 2,
                label: "node:12 cpu".into(),
                leased_replicas: vec![0, 1],
                owed_replicas: vec![1],
                contributions: 1200,
                silent_ms: 340,
                ..WorkerStatus::default()
            }],
            run_dir: "run".into(),
            ..StatusReply::default()
        }
    }

    #[test]
    fn the_text_says_who_is_waited_for_and_since_when() {
        assert_eq!(
            Status::from(reply()).text(),
            "training, step 120 of 900\n\
             loss 0.512, train acc 0.812, 413 images/s, lr 0.001, 2 replicas x 32 images\n\
             last evaluation: step 100, top-1 0.840, top-5 0.996, loss 0.450\n\
             waits for worker 2 for replica 1 since 1:01\n\
             run run, no checkpoint yet\n\
             \n\
             worker  leases  owes  blocks  contributions  silent  where\n     \
                  2  0,1     1     -               1,200   0.3 s  node:12 cpu"
        );
    }

    #[test]
    fn the_json_has_every_figure() {
        let json = serde_json::to_value(Status::from(reply())).unwrap();
        assert_eq!(json["global_step"], 120);
        assert_eq!(json["workers"][0]["owed_replicas"], serde_json::json!([1]));
        assert_eq!(json["last_evaluation"]["top1"], 420);
        assert_eq!(json["best_evaluation"], serde_json::Value::Null);
    }

    #[test]
    fn a_server_that_is_not_there_is_named() {
        let args = StatusArgs { ps: "unix:/nonexistent/ps.sock".parse().unwrap(), json: false };
        let message = run(&args).unwrap_err().to_string();
        assert!(message.contains("unix:/nonexistent/ps.sock"), "{message}");
        assert!(message.contains("is it running"), "{message}");
    }
}
