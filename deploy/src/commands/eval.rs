//! `hw2 eval`: how often a checkpoint is right on a validation set.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use hw2_common::checkpoint::{Checkpoint, list};
use hw2_common::dataset::Dataset;
use hw2_common::ids::GlobalStep;
use hw2_worker::classifier::Ranks;
use serde::Serialize;

use crate::checkpoint_args::{CheckpointArgs, Choice};
use crate::compute_args::ComputeArgs;
use crate::output::{self, Report};

/// Time between two looks for a new checkpoint.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Evaluates a run's checkpoint on validation images: precision @ 1 and 5
///
/// Each image counts once, with the EMA weights, as in training's own evaluations.
#[derive(Args, Clone, Debug)]
pub(crate) struct EvalArgs {
    #[command(flatten)]
    checkpoint: CheckpointArgs,

    /// Dataset folder or tar, train/ and val/, of the run's classes [default: where the run had it]
    #[arg(long, value_name = "PATH")]
    data: Option<PathBuf>,

    /// Only the first N validation images
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    num_examples: Option<u32>,

    /// An image is right when its class is among the first K
    #[arg(long, value_name = "K,...", value_delimiter = ',', default_value = "1,5")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    top_k: Vec<u32>,

    #[command(flatten)]
    compute: ComputeArgs,

    /// Go on with each new checkpoint of the run, until Ctrl-C
    #[arg(long)]
    watch: bool,

    /// Print one line of JSON for each evaluation
    #[arg(long)]
    json: bool,
}

/// Evaluates once, or with `--watch` until Ctrl-C.
pub(crate) fn run(args: &EvalArgs) -> anyhow::Result<()> {
    if !args.watch {
        return evaluate(args, &args.checkpoint.read()?);
    }
    if let Choice::File(path) = &args.checkpoint.checkpoint {
        anyhow::bail!(
            "--watch follows the run in --checkpoint-dir, but --checkpoint names the file {}: \
             leave one of them out",
            path.display()
        );
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let watched = args.clone();
    let result = runtime.block_on(async {
        tokio::select! {
            end = tokio::signal::ctrl_c() => end.context("cannot watch for Ctrl-C"),
            end = tokio::task::spawn_blocking(move || watch(&watched)) => end?,
        }
    });
    // An evaluation that is under way is not waited for.
    runtime.shutdown_background();
    result
}

fn watch(args: &EvalArgs) -> anyhow::Result<()> {
    let dir = &args.checkpoint.checkpoint_dir;
    let mut newest_seen: Option<GlobalStep> = None;
    loop {
        for (step, path) in list(dir)? {
            if newest_seen.is_none_or(|seen| step > seen) {
                newest_seen = Some(step);
                // A running server may have pruned it by now, which its next one makes up for.
                match Checkpoint::read(&path) {
                    Ok(checkpoint) => evaluate(args, &checkpoint)?,
                    Err(error) => output::note(&format!("passed over: {error}")),
                }
            }
        }
        std::thread::sleep(WATCH_INTERVAL);
    }
}

fn evaluate(args: &EvalArgs, checkpoint: &Checkpoint) -> anyhow::Result<()> {
    let data = match &args.data {
        Some(path) => path.clone(),
        None => checkpoint.job.config.data.clone().into(),
    };
    let dataset = Dataset::open(&data)
        .context("cannot read the validation images; --data names where they are")?;
    let examples = args.num_examples.unwrap_or(u32::MAX).min(dataset.card().val);
    let mut classifier = args.compute.classifier(checkpoint)?;
    let progress = output::Counter::new("images", examples.into());
    let ranks = classifier.evaluate(Arc::new(dataset), examples, &mut |done| {
        progress.show(done.into());
    })?;
    progress.clear();
    output::report(&Evaluation::new(checkpoint, &ranks, &args.top_k), args.json)
}

#[derive(Debug, Serialize)]
struct Evaluation {
    step: u64,
    samples: u32,
    precision: Vec<Precision>,
    loss: f64,
    bad_images: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Precision {
    k: u32,
    right: u32,
    precision: f64,
}

impl Evaluation {
    fn new(checkpoint: &Checkpoint, ranks: &Ranks, top_k: &[u32]) -> Self {
        let samples = ranks.ranks.len() as u32;
        let precision = |&k: &u32| {
            let right = ranks.top(k as usize);
            Precision { k, right, precision: f64::from(right) / f64::from(samples) }
        };
        Self {
            step: checkpoint.state.progress.global_step.0,
            samples,
            precision: top_k.iter().map(precision).collect(),
            loss: ranks.loss_sum / f64::from(samples),
            bad_images: ranks.bad_images.clone(),
        }
    }
}

impl Report for Evaluation {
    fn text(&self) -> String {
        let precisions = self.precision.iter().map(|Precision { k, right, precision }| {
            format!("precision @ {k} = {precision:.4} ({right} of {})", self.samples)
        });
        let head = format!("step {}: loss {:.4}", self.step, self.loss);
        let bad = self.bad_images.iter().map(|name| format!("unreadable and replaced: {name}"));
        std::iter::once(head).chain(precisions).chain(bad).collect::<Vec<_>>().join("\n")
    }
}
