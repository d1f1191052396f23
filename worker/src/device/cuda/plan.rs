//! What a program costs on a kind of GPU, counted from its launches.

use hw2_common::config::Precision;
use serde::Serialize;

use super::arena::Arena;
use super::kinds::GpuKind;
use super::launch::{Launch, Task};
use super::lower::{Lowering, TooLarge, lower};
use crate::device::{Op, Request};
use crate::nn::Program;

/// What a training step costs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// Images of a batch.
    pub batch_size: usize,
    /// In the order in which they are done.
    pub ops: Vec<PlannedOp>,
    /// Multiplications and additions for one image.
    pub flops: f64,
    /// Bytes of device memory read and written for one image, without columns that stay in L2.
    pub bytes: f64,
    /// The same with all columns.
    pub bytes_with_columns: f64,
    /// What no launch can beat: each takes as long as its arithmetic or its traffic does.
    pub images_per_second: f64,
    /// Bytes of all buffers, where those that are never used at once share a place.
    pub buffer_bytes: usize,
    /// The same if each had a place of its own.
    pub buffer_bytes_apart: usize,
    /// Bytes that one operation needs besides: columns, partial sums.
    pub workspace_bytes: usize,
}

/// One operation of it, for one image.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlannedOp {
    /// Its name and sizes.
    pub op: String,
    /// For a batch: the name and the sizes of each.
    pub launches: Vec<String>,
    /// Multiplications and additions.
    pub flops: f64,
    /// Bytes read and written, without columns that stay in L2.
    pub bytes: f64,
    /// Bytes of columns written and read.
    pub column_bytes: f64,
}

impl Plan {
    /// Of a training step with dropout of `program`, which is of `precision`, on a GPU of `kind`.
    ///
    /// # Errors
    /// The GPU does not have the precision, or there is too much for it.
    pub fn new(program: &Program, kind: &GpuKind, precision: Precision) -> Result<Self, String> {
        let flops_per_second = kind.flops_per_second(precision);
        let flops_per_second = flops_per_second
            .ok_or_else(|| format!("a {} has no {precision}: choose fp32", kind.name))?;
        let lowered: Vec<(Op, Lowering)> = (program.train(true).ops())
            .map(|op| Ok((op, lower(op, kind.limits())?)))
            .collect::<Result<_, TooLarge>>()
            .map_err(|error| error.to_string())?;
        let batch_size = program.batch_size();
        let ops: Vec<PlannedOp> =
            lowered.iter().map(|(op, lowering)| planned(*op, lowering, batch_size, kind)).collect();
        let launches = lowered.iter().flat_map(|(_, lowering)| &lowering.launches);
        let seconds: f64 = launches.map(|launch| seconds(launch, kind, flops_per_second)).sum();
        let sum = |of: fn(&PlannedOp) -> f64| ops.iter().map(of).sum::<f64>();
        let workspace = lowered.iter().map(|(_, lowering)| lowering.workspace_bytes).max();
        let lasting = |request: &Request| Request { used: None, ..request.clone() };
        let apart: Vec<Request> = program.requests().iter().map(lasting).collect();
        Ok(Self {
            batch_size,
            flops: sum(|op| op.flops),
            bytes: sum(|op| op.bytes),
            bytes_with_columns: sum(|op| op.bytes) + sum(|op| op.column_bytes),
            images_per_second: batch_size as f64 / seconds,
            buffer_bytes: Arena::new(program.requests()).bytes,
            buffer_bytes_apart: Arena::new(&apart).bytes,
            workspace_bytes: workspace.unwrap_or(0),
            ops,
        })
    }
}

fn planned(op: Op, lowering: &Lowering, batch_size: usize, kind: &GpuKind) -> PlannedOp {
    let per_image = |sum: f64| sum / batch_size as f64;
    let launches = &lowering.launches;
    PlannedOp {
        op: op.to_string(),
        launches: launches.iter().map(|launch| launch.task.to_string()).collect(),
        flops: per_image(launches.iter().map(flops).sum()),
        bytes: per_image(launches.iter().map(|launch| bytes(launch, kind)).sum()),
        column_bytes: per_image(launches.iter().map(|launch| kept_bytes(launch, kind)).sum()),
    }
}

fn flops(launch: &Launch) -> f64 {
    match &launch.task {
        Task::Kernel(_) => 0.0,
        Task::Product(product) => product.flops() as f64,
    }
}

/// Bytes of columns that the launch before has left in L2, or that the next one finds there.
fn kept_bytes(launch: &Launch, kind: &GpuKind) -> f64 {
    let columns = launch.traffic.columns;
    if columns <= kind.l2_bytes / 2 { columns as f64 } else { 0.0 }
}

fn bytes(launch: &Launch, kind: &GpuKind) -> f64 {
    let traffic = launch.traffic;
    (traffic.read + traffic.written + traffic.columns) as f64 - kept_bytes(launch, kind)
}

fn seconds(launch: &Launch, kind: &GpuKind, flops_per_second: f64) -> f64 {
    let arithmetic = flops(launch) / flops_per_second;
    arithmetic.max(bytes(launch, kind) / kind.bytes_per_second)
}
