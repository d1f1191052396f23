//! `hw2 bench plan`: what a training step costs on a kind of GPU, without one.

use clap::Args;
use hw2_common::config::Precision;
use hw2_common::model::ModelSpec;
use hw2_worker::device::cuda::{GpuKind, Plan, PlannedOp};
use hw2_worker::nn::Program;
use serde::Serialize;

use crate::output::{self, Column, Report, Table, rate};

/// Prints arithmetic and memory traffic of a training step on a kind of GPU, and what bounds it
///
/// Counted from the very launches that a worker makes. Nothing is computed, no GPU is needed.
#[derive(Args, Debug)]
pub(crate) struct PlanArgs {
    /// Kind of GPU
    #[arg(long, value_name = "k80|v100|a100|h100")]
    gpu: GpuKind,

    /// Of activations and products: fp32, tf32 or bf16
    #[arg(long, value_name = "PRECISION", default_value_t = Precision::Fp32)]
    precision: Precision,

    /// Images of a batch
    #[arg(long, value_name = "N", default_value_t = 128)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=4096))]
    batch: u32,

    /// Rows and columns of an image
    #[arg(long, value_name = "N", default_value_t = 100)]
    image_size: usize,

    /// Number of classes
    #[arg(long, value_name = "N", default_value_t = 65)]
    classes: usize,

    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

/// Plans and prints.
pub(crate) fn run(args: &PlanArgs) -> anyhow::Result<()> {
    let spec = ModelSpec { image_size: args.image_size, ..ModelSpec::default() };
    let batch = args.batch as usize;
    let program = Program::new(&spec.network(args.classes)?, batch, args.precision);
    let plan = Plan::new(&program, &args.gpu, args.precision).map_err(anyhow::Error::msg)?;
    output::report(&Planned(plan), args.json)
}

#[derive(Serialize)]
#[serde(transparent)]
struct Planned(Plan);

impl Report for Planned {
    fn text(&self) -> String {
        let mut table = Table::new([
            Column::Left("operation"),
            Column::Right("launches"),
            Column::Right("MFLOP"),
            Column::Right("MB"),
            Column::Right("MB of columns in L2"),
        ]);
        let mega = |number: f64| format!("{:.2}", number / 1e6);
        for PlannedOp { op, launches, flops, bytes, column_bytes } in &self.0.ops {
            let row = [mega(*flops), mega(*bytes), mega(*column_bytes)];
            let [flops, bytes, columns] = row;
            table.row([op.clone(), launches.len().to_string(), flops, bytes, columns]);
        }
        let Plan { batch_size, flops, bytes, bytes_with_columns, images_per_second, .. } = &self.0;
        let Plan { buffer_bytes, buffer_bytes_apart, workspace_bytes, .. } = &self.0;
        let [buffers, apart, workspace] =
            [buffer_bytes, buffer_bytes_apart, workspace_bytes].map(|bytes| mega(*bytes as f64));
        format!(
            "{table}\n\nfor one image of a batch of {batch_size}: {} MFLOP, {} MB of device memory \
             read and written ({} MB with all columns)\nat most {} images/s\nmemory: {buffers} MB of \
             buffers ({apart} MB if none shared a place), {workspace} MB of workspace",
            mega(*flops),
            mega(*bytes),
            mega(*bytes_with_columns),
            rate(*images_per_second)
        )
    }
}
