//! `hw2 bench plan`: what a training step costs on a kind of GPU, without one.

use clap::Args;
use hw2_common::config::{Images, Precision};
use hw2_common::model::ModelSpec;
use hw2_worker::device::cuda::{Cost, GpuKind, Plan, PlannedLayer, PlannedOp};
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

    /// Rows and columns of the squares of photos that images are made of, if not the mean of what
    /// the default config draws
    #[arg(long, value_name = "N", default_value_t = mean_crop())]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=4096))]
    photo_side: u32,

    /// Print each operation, in the order in which they are done
    #[arg(long)]
    operations: bool,

    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

fn mean_crop() -> u32 {
    let Images { crop_min, crop_max, .. } = Images::default();
    u32::midpoint(crop_min, crop_max)
}

/// Plans and prints.
pub(crate) fn run(args: &PlanArgs) -> anyhow::Result<()> {
    let spec = ModelSpec { image_size: args.image_size, ..ModelSpec::default() };
    let batch = args.batch as usize;
    let program = Program::new(&spec.network(args.classes)?, batch, args.precision);
    let plan = Plan::new(&program, &args.gpu, args.precision, args.photo_side);
    let plan = plan.map_err(anyhow::Error::msg)?;
    output::report(&Planned { plan, operations: args.operations }, args.json)
}

#[derive(Serialize)]
#[serde(transparent)]
struct Planned {
    plan: Plan,
    /// Whether the text has them.
    #[serde(skip)]
    operations: bool,
}

impl Planned {
    fn table(&self) -> Table {
        let Plan { layers, ops, .. } = &self.plan;
        let of_layer = |PlannedLayer { layer, launches, cost }: &PlannedLayer| {
            (vec![layer.clone()], *launches, *cost)
        };
        let of_op = |PlannedOp { layer, op, launches, cost }: &PlannedOp| {
            (vec![layer.clone(), op.clone()], launches.len(), *cost)
        };
        let (names, rows): (&[_], Vec<_>) = match self.operations {
            true => (&["layer", "operation"], ops.iter().map(of_op).collect()),
            false => (&["layer"], layers.iter().map(of_layer).collect()),
        };
        let costs = ["launches", "MFLOP", "MB", "MB of columns in L2"].map(Column::Right);
        let mut table = Table::new(names.iter().copied().map(Column::Left).chain(costs));
        for (names, launches, Cost { flops, bytes, column_bytes }) in rows {
            let costs =
                [launches.to_string()].into_iter().chain([flops, bytes, column_bytes].map(mega));
            table.row(names.into_iter().chain(costs));
        }
        table
    }
}

impl Report for Planned {
    fn text(&self) -> String {
        let Plan { batch_size, cost, images_per_second, .. } = &self.plan;
        let Plan { buffer_bytes, buffer_bytes_apart, workspace_bytes, .. } = &self.plan;
        let [buffers, apart, workspace] =
            [buffer_bytes, buffer_bytes_apart, workspace_bytes].map(|bytes| mega(*bytes as f64));
        format!(
            "{}\n\nfor one image of a batch of {batch_size}: {} MFLOP, {} MB of device memory \
             read and written ({} MB with all columns)\nat most {} images/s\nmemory: {buffers} MB of \
             buffers ({apart} MB if none shared a place), {workspace} MB of workspace",
            self.table(),
            mega(cost.flops),
            mega(cost.bytes),
            mega(cost.bytes_with_columns()),
            rate(*images_per_second)
        )
    }
}

fn mega(number: f64) -> String {
    format!("{:.2}", number / 1e6)
}
