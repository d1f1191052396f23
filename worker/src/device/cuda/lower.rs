//! From an operation to what the GPU is asked to do for it.
//!
//! A pure function of the operation and of the GPU's [`Limits`]: no driver, no memory. Each kind of
//! operation has a file with the name that it has on every device.

use super::launch::{Arg, Kernel, Launch, Matrix, PAIR_BYTES, Place, Product, Task, Traffic, int};
use super::unit::Unit;
use super::{
    batch_norm, bias, cast, conv2d, dropout, gemm, max_pool, pointwise, relu,
    softmax_cross_entropy, weight_decay,
};
use crate::device::{Format, Op, Span, Tensor};

/// Threads of a block that runs along a row of numbers.
pub(super) const THREADS: usize = 256;
/// Channels of a block that sums over rows.
const LANES: usize = 32;
/// Rows that such a block takes at once.
const ROW_LANES: usize = 8;
/// Rows that it takes in all.
const ROWS_PER_BLOCK: usize = 256;
/// From so many rows on a block of wide lanes takes more, since there are blocks enough.
const MANY_ROWS: usize = 1 << 18;
const LONG_BLOCK: usize = 1024;
/// Lanes of 16 bytes of such a block where it can read them at once, and rows.
const WIDE_LANES: usize = 8;
const WIDE_ROW_LANES: usize = THREADS / WIDE_LANES;

/// What a kind of GPU is given at a time. Constants of the kind: results depend on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    /// Bytes of im2col columns in one lane, unless one image has more.
    pub(super) column_bytes: usize,
}

/// The launches of one operation, while they are collected.
pub(super) struct Lowering {
    pub(super) limits: Limits,
    pub(super) launches: Vec<Launch>,
    /// Bytes of the workspace that they need.
    pub(super) workspace_bytes: usize,
    /// Of the next ones.
    lane: Option<usize>,
}

/// An operation on more numbers than a kernel can count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{op} over {numbers} numbers at once, and a kernel counts to 2,147,483,647: set a smaller \
     batch_size, or model.image_size"
)]
pub(super) struct TooLarge {
    op: String,
    numbers: usize,
}

/// Kernels count in 31 bits, for the sake of speed.
fn check(op: Op, limits: Limits) -> Result<(), TooLarge> {
    let operands = op.reads().into_iter().chain(op.writes()).map(|operand| operand.hull().len);
    let numbers = operands.chain(conv2d::column_numbers(op, limits)).max().unwrap_or(0);
    match i32::try_from(numbers) {
        Ok(_) => Ok(()),
        Err(_) => Err(TooLarge { op: op.to_string(), numbers }),
    }
}

/// What the GPU does for `op`.
///
/// # Errors
/// There is too much of it.
pub(super) fn lower(op: Op, limits: Limits) -> Result<Lowering, TooLarge> {
    check(op, limits)?;
    let mut to = Lowering::new(limits);
    match op {
        Op::Conv2dForward { window, input, weight, epilogue, output } => {
            conv2d::forward(&mut to, window, input, weight, epilogue, output);
        }
        Op::Conv2dGradInput { window, grad_output, weight, update, grad_input } => {
            conv2d::grad_input(&mut to, window, grad_output, weight, update, grad_input);
        }
        Op::Conv2dGradWeight { window, input, grad_output, grad_weight } => {
            conv2d::grad_weight(&mut to, window, input, grad_output, grad_weight);
        }
        Op::PointwiseForward { input, convs } => pointwise::forward(&mut to, input, convs),
        Op::PointwiseGradInput { convs, grad_input } => {
            pointwise::grad_input(&mut to, convs, grad_input);
        }
        Op::PointwiseGradWeight { input, convs } => pointwise::grad_weight(&mut to, input, convs),
        Op::Moments { input, mean, var } => batch_norm::moments(&mut to, input, mean, var),
        Op::BatchNormRelu { bn, input, output } => {
            batch_norm::relu_forward(&mut to, bn, input, output);
        }
        Op::BatchNormReluBackward {
            bn,
            input,
            grad_output,
            grad_input,
            grad_weight,
            grad_bias,
        } => {
            let grads = (grad_output, grad_input);
            batch_norm::relu_backward(&mut to, bn, input, grads, grad_weight, grad_bias);
        }
        Op::MaxPoolForward { window, input, output, places } => {
            max_pool::forward(&mut to, window, input, output, places);
        }
        Op::MaxPoolBackward { window, places, grad_output, update, grad_input } => {
            max_pool::backward(&mut to, window, places, grad_output, update, grad_input);
        }
        Op::Dropout { mask, tensor } => dropout::apply(&mut to, mask, tensor),
        Op::ReluBackward { output, grad } => relu::backward(&mut to, output, grad),
        Op::AddBias { bias, tensor } => bias::add(&mut to, bias, tensor, false),
        Op::BiasBackward { grad_output, grad_bias } => {
            bias::backward(&mut to, grad_output, grad_bias);
        }
        Op::Gemm { gemm, a, b, c } => gemm::multiply(&mut to, gemm, a, b, c),
        Op::Cast { input, output } => cast::cast(&mut to, input, output),
        Op::WeightDecay { decay, weight, grad_weight, penalty } => {
            weight_decay::apply(&mut to, decay, weight, grad_weight, penalty);
        }
        Op::SoftmaxCrossEntropy { logits, labels, grad_logits, loss, top1 } => {
            softmax_cross_entropy::apply(&mut to, logits, labels, grad_logits, loss, top1);
        }
    }
    Ok(to)
}

impl Lowering {
    /// Nothing yet.
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, launches: Vec::new(), workspace_bytes: 0, lane: None }
    }

    /// The launches of `work` are in `lane`.
    pub(super) fn in_lane(&mut self, lane: usize, work: impl FnOnce(&mut Self)) {
        self.lane = Some(lane);
        work(self);
        self.lane = None;
    }

    /// Room in the workspace.
    pub(super) fn scratch(&mut self, bytes: usize) -> Place {
        let offset = self.workspace_bytes;
        self.workspace_bytes += bytes.next_multiple_of(256);
        Place::Workspace { offset }
    }

    /// Room for a pair of f64 for each of `count`.
    pub(super) fn pairs(&mut self, count: usize) -> Place {
        self.scratch(count * PAIR_BYTES)
    }

    /// A thread for each of `count` numbers, which are the last argument.
    pub(super) fn for_each(
        &mut self,
        name: &'static str,
        count: usize,
        traffic: Traffic,
        mut args: Vec<Arg>,
    ) {
        args.push(int(count));
        self.threads(name, count, traffic, args);
    }

    /// `count` threads.
    pub(super) fn threads(
        &mut self,
        name: &'static str,
        count: usize,
        traffic: Traffic,
        args: Vec<Arg>,
    ) {
        self.kernel(name, [count.div_ceil(THREADS), 1], [THREADS, 1], traffic, args);
    }

    /// Blocks over all rows and channels of `tensor`, for a kernel that reads `unit`s.
    pub(super) fn over_rows(
        &mut self,
        unit: Unit,
        name: &'static str,
        tensor: Tensor,
        traffic: Traffic,
        mut args: Vec<Arg>,
    ) {
        let lanes = if unit.is_wide() { [WIDE_LANES, WIDE_ROW_LANES] } else { [LANES, ROW_LANES] };
        if unit.is_wide() {
            args.push(int(rows_of_block(unit, tensor)));
        }
        // Along y there may be 65,535 blocks only.
        let grid = [row_blocks(unit, tensor), unit.count(tensor.shape.c).div_ceil(lanes[0])];
        self.kernel(name, grid, lanes, traffic, args);
    }

    /// One block for each of `count`.
    pub(super) fn blocks(
        &mut self,
        name: &'static str,
        count: usize,
        traffic: Traffic,
        args: Vec<Arg>,
    ) {
        self.kernel(name, [count, 1], [THREADS, 1], traffic, args);
    }

    /// One warp for each of `count`.
    pub(super) fn warps(
        &mut self,
        name: &'static str,
        count: usize,
        traffic: Traffic,
        args: Vec<Arg>,
    ) {
        self.kernel(name, [count, 1], [32, 1], traffic, args);
    }

    fn kernel(
        &mut self,
        name: &'static str,
        grid: [usize; 2],
        block: [usize; 2],
        traffic: Traffic,
        args: Vec<Arg>,
    ) {
        let small = |count: usize| u32::try_from(count).expect("a tensor has few blocks");
        let (grid, block) = (grid.map(small), block.map(small));
        self.push(Kernel { name, grid, block, args }, traffic);
    }

    pub(super) fn push(&mut self, kernel: Kernel, traffic: Traffic) {
        self.launches.push(Launch { task: Task::Kernel(kernel), traffic, lane: self.lane });
    }

    /// c (m, n) = a (m, k) * b (k, n) + beta * c, all row-major: each is the transpose of what lies
    /// there column by column, so that cuBLAS is asked for c^T = b^T * a^T.
    pub(super) fn product(&mut self, [m, n, k]: [usize; 3], a: Rows, b: Rows, beta: f32, c: Rows) {
        assert!(!c.transposed, "a product is written as it is");
        assert_eq!(a.format, b.format, "a product is of numbers of one format");
        let matrix =
            |rows: Rows| Matrix { place: rows.place, ld: rows.ld, transposed: rows.transposed };
        let product = Product {
            m: n,
            n: m,
            k,
            a: matrix(b),
            b: matrix(a),
            format: a.format,
            beta,
            c: c.place,
            result: c.format,
            ldc: c.ld,
        };
        let traffic = product.traffic();
        self.launches.push(Launch { task: Task::Product(product), traffic, lane: self.lane });
    }
}

/// A row-major matrix.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rows {
    pub(super) place: Place,
    pub(super) format: Format,
    /// Numbers from one row to the next.
    pub(super) ld: usize,
    /// Whether it is the transpose of what is meant.
    pub(super) transposed: bool,
}

impl Rows {
    /// A matrix whose rows follow each other.
    pub(super) fn new(span: Span, columns: usize) -> Self {
        Self { place: span.into(), format: span.buffer.format, ld: columns, transposed: false }
    }

    /// The pixels of a tensor.
    pub(super) fn of(tensor: Tensor) -> Self {
        let Tensor { buffer, ld, .. } = tensor;
        Self { place: tensor.into(), format: buffer.format, ld, transposed: false }
    }

    /// Columns in the workspace.
    pub(super) fn columns(place: Place, format: Format, columns: usize) -> Self {
        Self { place, format, ld: columns, transposed: false }
    }

    pub(super) fn transposed(self) -> Self {
        Self { transposed: !self.transposed, ..self }
    }
}

/// Blocks along the rows of `tensor` in a sum over them by `unit`.
pub(super) fn row_blocks(unit: Unit, tensor: Tensor) -> usize {
    tensor.rows().div_ceil(rows_of_block(unit, tensor))
}

/// A block that begins with the roots of its channels is worth them if it has many rows.
fn rows_of_block(unit: Unit, tensor: Tensor) -> usize {
    let is_long = unit.is_wide() && tensor.rows() >= MANY_ROWS;
    if is_long { LONG_BLOCK } else { ROWS_PER_BLOCK }
}

#[cfg(test)]
mod tests {
    use hw2_common::model::Shape;

    use super::*;
    use crate::device::{Buffer, Update, Window};

    #[test]
    fn what_a_kernel_cannot_count_is_named() {
        let limits = Limits { column_bytes: 32 << 20 };
        let tensor =
            |n, h, c| Tensor::new(Buffer::numbered(0, Format::Full), n, Shape { h, w: h, c });
        let large = tensor(65_536, 100, 64);
        let error = lower(Op::ReluBackward { output: large, grad: large }, limits).err().unwrap();
        for part in ["relu_backward 100x100x64", "41943040000 numbers", "batch_size"] {
            assert!(error.to_string().contains(part), "{error}");
        }
        // Each of its tensors can be counted, but not the columns of one image.
        let (window, image) = (Window { kernel_size: 15, stride: 1 }, tensor(1, 1000, 16));
        let weight = Span { buffer: image.buffer, offset: 0, len: 15 * 15 * 16 * 16 };
        let (grad_output, grad_input, update) = (image, image, Update::Add);
        let op = Op::Conv2dGradInput { window, grad_output, weight, update, grad_input };
        assert!(lower(op, limits).err().unwrap().to_string().contains("3600000000 numbers"));
        assert!(lower(Op::ReluBackward { output: image, grad: image }, limits).is_ok());
    }
}
