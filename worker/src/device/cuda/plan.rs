//! What a program costs on a kind of GPU, counted from its launches.

use std::iter::Sum;

use hw2_common::config::Precision;
use serde::Serialize;

use super::arena::Arena;
use super::augment;
use super::kinds::GpuKind;
use super::launch::{Launch, Task};
use super::lower::{Lowering, lower};
use crate::device::Request;
use crate::nn::Program;

/// What is no layer's: the images of a batch, and what is done with parameters for all layers.
const PHOTOS: &str = "photos";
const PARAMETERS: &str = "parameters";

/// What a training step costs, from photos on the device to gradients.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// Images of a batch.
    pub batch_size: usize,
    /// The sums of operations: of finishing photos, of each layer forward and backward, and of what
    /// belongs to none.
    pub layers: Vec<PlannedLayer>,
    /// In the order in which they are done; photos are finished first.
    pub ops: Vec<PlannedOp>,
    /// For one image.
    pub cost: Cost,
    /// What no launch can beat: each takes as long as its arithmetic or its traffic does.
    pub images_per_second: f64,
    /// Bytes of all buffers, where those that are never used at once share a place.
    pub buffer_bytes: usize,
    /// The same if each had a place of its own.
    pub buffer_bytes_apart: usize,
    /// Bytes that one operation needs besides: columns, partial sums.
    pub workspace_bytes: usize,
}

/// A layer, or what belongs to none: the sum of its operations.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlannedLayer {
    /// Its name.
    pub layer: String,
    /// For a batch.
    pub launches: usize,
    /// For one image.
    pub cost: Cost,
}

/// One operation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlannedOp {
    /// What it belongs to.
    pub layer: String,
    /// Its name and sizes.
    pub op: String,
    /// For a batch: the name and the sizes of each.
    pub launches: Vec<String>,
    /// For one image.
    pub cost: Cost,
}

/// What something costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Cost {
    /// Multiplications and additions of matrix products.
    pub flops: f64,
    /// Bytes of device memory read and written, without columns that stay in L2.
    pub bytes: f64,
    /// Bytes of columns written and read that stay in L2.
    pub column_bytes: f64,
}

impl Plan {
    /// Of a training step with dropout of `program`, which is of `precision`, on a GPU of `kind`,
    /// with images that are made of squares of `photo_side` rows.
    ///
    /// # Errors
    /// The GPU does not have the precision, or there is too much for it.
    pub fn new(
        program: &Program,
        kind: &GpuKind,
        precision: Precision,
        photo_side: u32,
    ) -> Result<Self, String> {
        let flops_per_second = kind.flops_per_second(precision);
        let flops_per_second = flops_per_second
            .ok_or_else(|| format!("a {} has no {precision}: choose fp32", kind.name))?;
        let (batch_size, images) = (program.batch_size(), program.images());
        let mut photos = Lowering::new(kind.limits());
        augment::plan(&mut photos, photo_side, images);
        let size = images.shape.h;
        let name = format!("photos {photo_side}x{photo_side} -> {size}x{size}x3");
        let mut lowered = vec![(PHOTOS, name, photos)];
        let layers = program.ops_by_layer();
        for op in program.train(true).ops() {
            let layer = layers.iter().find(|(_, ops)| ops.contains(&op));
            let layer = layer.map_or(PARAMETERS, |(layer, _)| layer);
            let lowering = lower(op, kind.limits()).map_err(|error| error.to_string())?;
            lowered.push((layer, op.to_string(), lowering));
        }
        let launches = lowered.iter().flat_map(|(_, _, lowering)| &lowering.launches);
        let seconds: f64 = launches.map(|launch| seconds(launch, kind, flops_per_second)).sum();
        let workspace = lowered.iter().map(|(_, _, lowering)| lowering.workspace_bytes).max();
        let planned = |(layer, op, lowering): (&str, String, Lowering)| PlannedOp {
            layer: layer.to_owned(),
            op,
            launches: lowering.launches.iter().map(|launch| launch.task.to_string()).collect(),
            cost: cost(&lowering, batch_size, kind),
        };
        let ops: Vec<PlannedOp> = lowered.into_iter().map(planned).collect();
        let names = layers.iter().map(|(layer, _)| *layer);
        let names = [PHOTOS].into_iter().chain(names).chain([PARAMETERS]);
        let lasting = |request: &Request| Request { used: None, ..request.clone() };
        let apart: Vec<Request> = program.requests().iter().map(lasting).collect();
        Ok(Self {
            batch_size,
            layers: names.filter_map(|layer| sum_of_layer(layer, &ops)).collect(),
            cost: ops.iter().map(|op| op.cost).sum(),
            images_per_second: batch_size as f64 / seconds,
            buffer_bytes: Arena::new(program.requests()).bytes,
            buffer_bytes_apart: Arena::new(&apart).bytes,
            workspace_bytes: workspace.unwrap_or(0),
            ops,
        })
    }
}

impl Cost {
    /// With all columns.
    pub fn bytes_with_columns(&self) -> f64 {
        self.bytes + self.column_bytes
    }
}

impl Sum for Cost {
    fn sum<I: Iterator<Item = Self>>(costs: I) -> Self {
        costs.fold(Self::default(), |sum, cost| Self {
            flops: sum.flops + cost.flops,
            bytes: sum.bytes + cost.bytes,
            column_bytes: sum.column_bytes + cost.column_bytes,
        })
    }
}

/// What the `ops` of `layer` cost; none if it has none.
fn sum_of_layer(layer: &str, ops: &[PlannedOp]) -> Option<PlannedLayer> {
    let ops: Vec<&PlannedOp> = ops.iter().filter(|op| op.layer == layer).collect();
    let launches = ops.iter().map(|op| op.launches.len()).sum();
    let cost = ops.iter().map(|op| op.cost).sum();
    (launches > 0).then(|| PlannedLayer { layer: layer.to_owned(), launches, cost })
}

fn cost(lowering: &Lowering, batch_size: usize, kind: &GpuKind) -> Cost {
    let launches = || lowering.launches.iter();
    let per_image = |sum: f64| sum / batch_size as f64;
    Cost {
        flops: per_image(launches().map(flops).sum()),
        bytes: per_image(launches().map(|launch| bytes(launch, kind)).sum()),
        column_bytes: per_image(launches().map(|launch| kept_bytes(launch, kind)).sum()),
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

#[cfg(test)]
mod tests {
    use hw2_common::model::ModelSpec;

    use super::*;
    use crate::device::cuda::launch::{Arg, LANES};

    const PRECISIONS: [Precision; 3] = [Precision::Fp32, Precision::Tf32, Precision::Bf16];

    fn program(batch_size: usize, precision: Precision) -> Program {
        let network = ModelSpec::default().network(65).unwrap();
        Program::new(&network, batch_size, precision)
    }

    fn plan(kind: &str, precision: Precision) -> Plan {
        let kind = kind.parse().unwrap();
        Plan::new(&program(128, precision), &kind, precision, 230).unwrap()
    }

    #[test]
    fn a_training_image_moves_few_bytes() {
        for (precision, limit) in PRECISIONS.into_iter().zip([90e6, 90e6, 50e6]) {
            let Plan { cost, .. } = plan("h100", precision);
            assert!(cost.bytes <= limit, "{precision}: {} bytes", cost.bytes);
        }
    }

    #[test]
    fn a_k80_has_room_for_a_batch_of_128() {
        let Plan { buffer_bytes, workspace_bytes, .. } = plan("k80", Precision::Fp32);
        // cuBLAS and the driver need some, too.
        assert!(buffer_bytes + workspace_bytes < 10 << 30, "{buffer_bytes} {workspace_bytes}");
    }

    #[test]
    fn layers_have_all_operations() {
        for precision in PRECISIONS {
            let plan = plan("a100", precision);
            let launches: usize = plan.layers.iter().map(|layer| layer.launches).sum();
            assert_eq!(launches, plan.ops.iter().map(|op| op.launches.len()).sum::<usize>());
            let names: Vec<&str> = plan.layers.iter().map(|layer| layer.layer.as_str()).collect();
            assert_eq!((names[0], names[1]), ("photos", "conv_stack1"), "{names:?}");
            // Parameters are rounded for products in bfloat16.
            assert_eq!(names.contains(&PARAMETERS), precision == Precision::Bf16, "{names:?}");
        }
    }

    /// Columns stay in L2 because the next launch of their lane uses them.
    #[test]
    fn columns_are_used_at_once() {
        let program = program(3, Precision::Fp32);
        let limits = "h100".parse::<GpuKind>().unwrap().limits();
        let mut used = 0;
        for op in program.train(true).ops() {
            let lowering = lower(op, limits).unwrap();
            for lane in (0..LANES).map(Some) {
                let launches = lowering.launches.iter().filter(|launch| launch.lane == lane);
                let tasks: Vec<&Task> = launches.map(|launch| &launch.task).collect();
                let (pairs, rest) = tasks.as_chunks::<2>();
                assert!(rest.is_empty(), "{op}");
                for pair in pairs {
                    let is_used = match pair {
                        // Row-major columns times weights are the second operand of cuBLAS, and
                        // their transpose times a gradient too.
                        [Task::Kernel(make), Task::Product(product)] => {
                            make.name.starts_with("im2col")
                                && make.args[1] == Arg::Address(product.b.place)
                        }
                        [Task::Product(product), Task::Kernel(add_up)] => {
                            add_up.name.starts_with("col2im")
                                && add_up.args[0] == Arg::Address(product.c)
                        }
                        _ => false,
                    };
                    assert!(is_used, "{op}: {pair:?}");
                    used += 1;
                }
            }
        }
        assert!(used > 0, "there are columns");
    }
}
