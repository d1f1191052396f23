//! `hw2 bench step`: how fast this machine trains and evaluates, on images in memory.

use clap::Args;
use hw2_common::config::Precision;
use hw2_common::memory;
use hw2_common::model::ModelSpec;
use hw2_worker::bench_step::{PrimitiveTime, StepBench, StepBenchOptions, bench_step};
use serde::Serialize;

use crate::compute_args::ComputeArgs;
use crate::output::{self, Column, Report, Table, count, rate};

/// Measures a training step and an evaluation step on random images in memory
#[derive(Args, Debug)]
pub(crate) struct StepArgs {
    #[command(flatten)]
    compute: ComputeArgs,

    /// Of activations and products: fp32, tf32 or bf16
    #[arg(long, value_name = "PRECISION", default_value_t = Precision::Fp32)]
    precision: Precision,

    /// Images of a batch
    #[arg(long, value_name = "N", default_value_t = 32)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=65_536))]
    batch: u32,

    /// Rows and columns of an image
    #[arg(long, value_name = "N", default_value_t = 100)]
    image_size: usize,

    /// Number of classes
    #[arg(long, value_name = "N", default_value_t = 65)]
    classes: usize,

    /// Measured steps, of which the median counts
    #[arg(long, value_name = "N", default_value_t = 5)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    repeats: u32,

    /// Say also where the time of a training step goes
    #[arg(long)]
    primitives: bool,

    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

/// Measures and prints.
pub(crate) fn run(args: &StepArgs) -> anyhow::Result<()> {
    // As a worker does.
    memory::use_huge_pages();
    let spec = ModelSpec { image_size: args.image_size, ..ModelSpec::default() };
    let options = StepBenchOptions {
        device: args.compute.choice()?,
        network: spec.network(args.classes)?,
        precision: args.precision,
        batch_size: args.batch as usize,
        repeats: args.repeats,
        primitives: args.primitives,
    };
    output::report(&Step(bench_step(&options)?), args.json)
}

#[derive(Serialize)]
#[serde(transparent)]
struct Step(StepBench);

impl Report for Step {
    fn text(&self) -> String {
        let StepBench { device, parameters, precision, batch_size, .. } = &self.0;
        let mut lines = vec![
            format!(
                "{device}, {precision}, batch {batch_size}, {} parameters",
                count(*parameters as u64)
            ),
            pace("training", self.0.train_step_ms, self.0.train_images_per_second),
            pace("evaluation", self.0.evaluate_ms, self.0.evaluate_images_per_second),
        ];
        let mebibytes = |bytes| bytes as f64 / f64::from(1 << 20);
        let peak = self.0.peak_memory_bytes;
        lines.extend(peak.map(|peak| format!("peak memory {:.0} MiB", mebibytes(peak))));
        if !self.0.primitives.is_empty() {
            lines.push(format!("\n{}", primitives(&self.0.primitives)));
        }
        lines.join("\n")
    }
}

fn pace(what: &str, ms: f64, images_per_second: f64) -> String {
    format!("{what:<10}  {ms:>8.1} ms a step  {:>6} images/s", rate(images_per_second))
}

fn primitives(times: &[PrimitiveTime]) -> Table {
    let mut table = Table::new([
        Column::Right("ms"),
        Column::Right("GFLOP/s"),
        Column::Right("calls"),
        Column::Left("primitive"),
    ]);
    for PrimitiveTime { primitive, calls, ms, gflops } in times {
        let gflops = gflops.map_or("-".into(), rate);
        table.row([format!("{ms:.2}"), gflops, calls.to_string(), primitive.clone()]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_both_paces_and_where_the_time_goes() {
        let primitive =
            PrimitiveTime { primitive: "gemm".into(), calls: 4, ms: 12.345, gflops: Some(112.4) };
        let text = Step(StepBench {
            precision: Precision::Fp32,
            device: "cpu, 2 threads".into(),
            parameters: 2_958_689,
            batch_size: 32,
            train_step_ms: 640.0,
            train_images_per_second: 50.0,
            evaluate_ms: 150.0,
            evaluate_images_per_second: 213.3,
            peak_memory_bytes: Some(700 << 20),
            primitives: vec![primitive],
        })
        .text();
        assert_eq!(
            text,
            "cpu, 2 threads, fp32, batch 32, 2,958,689 parameters\n\
             training       640.0 ms a step    50.0 images/s\n\
             evaluation     150.0 ms a step     213 images/s\n\
             peak memory 700 MiB\n\
             \n   \
                ms  GFLOP/s  calls  primitive\n\
             12.35      112      4  gemm"
        );
    }
}
