//! Batch normalisation with the ReLU that follows it; see [`crate::device::plain::batch_norm`].

use super::launch::{Arg, Place, Traffic, int, matrix, numbers};
use super::lower::{Lowering, row_blocks};
use crate::device::{BN_EPSILON, BatchNorm, Span, Tensor};

/// Over at most so many rows backward makes the moments anew, in all their digits.
const FEW_ROWS: usize = 1024;

pub(super) fn moments(to: &mut Lowering, input: Tensor, mean: Span, var: Span) {
    let sums = sums(to, input);
    let (blocks, rows) = (int(row_blocks(input)), int(input.rows()));
    let args = vec![sums.into(), blocks, rows, mean.into(), var.into()];
    to.blocks("moments", input.shape.c, combines(input, 2), args);
}

/// Sums of x and x^2 over each block of rows.
fn sums(to: &mut Lowering, input: Tensor) -> Place {
    let sums = to.pairs(input.shape.c * row_blocks(input));
    let args = vec![input.into(), sums.into(), matrix(input)];
    to.over_rows("moments_of_blocks", input, sums_up(input, 1), args);
    sums
}

/// Reads so many tensors like `input` and writes a pair for each block and channel.
fn sums_up(input: Tensor, tensors: usize) -> Traffic {
    Traffic::of(tensors * numbers(input), 0).writes_pairs(input.shape.c * row_blocks(input))
}

/// Reads these pairs and writes so many numbers for each channel.
fn combines(input: Tensor, written: usize) -> Traffic {
    let c = input.shape.c;
    Traffic::of(0, written * c).reads_pairs(c * row_blocks(input))
}

/// Mean, variance, weight, bias, epsilon.
fn channels(bn: BatchNorm) -> Vec<Arg> {
    let mut args: Vec<Arg> = [bn.mean, bn.var, bn.weight, bn.bias].map(Arg::from).to_vec();
    args.push(Arg::Double(BN_EPSILON));
    args
}

pub(super) fn relu_forward(to: &mut Lowering, bn: BatchNorm, input: Tensor, output: Tensor) {
    let mut args = vec![input.into(), output.into()];
    args.extend(channels(bn));
    args.extend([matrix(input), int(output.ld)]);
    let traffic = Traffic::of(numbers(input), numbers(input));
    to.over_rows("batch_norm_relu", input, traffic, args);
}

pub(super) fn relu_backward(
    to: &mut Lowering,
    bn: BatchNorm,
    input: Tensor,
    grad: Tensor,
    grad_weight: Span,
    grad_bias: Span,
) {
    let c = input.shape.c;
    let (blocks, rows) = (row_blocks(input), input.rows());
    let normalisers = normalisers(to, bn, input);
    let mut common = vec![input.into(), grad.into()];
    common.extend(channels(bn));
    common.push(normalisers.into());

    let sums = to.pairs(c * blocks);
    let mut args = common.clone();
    args.extend([matrix(input), int(grad.ld), sums.into()]);
    to.over_rows("batch_norm_sums", input, sums_up(input, 2), args);

    let means = to.pairs(c);
    let mut args = vec![sums.into(), int(blocks), int(rows), means.into()];
    args.extend([grad_weight, grad_bias].map(Arg::from));
    to.blocks("batch_norm_means", c, combines(input, 2).writes_pairs(c), args);

    common.extend([means.into(), matrix(input), int(grad.ld)]);
    let traffic = Traffic::of(2 * numbers(input), numbers(input));
    to.over_rows("batch_norm_backward", input, traffic, common);
}

/// Mean and 1 / sqrt(var + epsilon) of each channel in f64.
fn normalisers(to: &mut Lowering, bn: BatchNorm, input: Tensor) -> Place {
    let c = input.shape.c;
    let normalisers = to.pairs(c);
    if input.rows() > FEW_ROWS {
        let epsilon = Arg::Double(BN_EPSILON);
        let args = vec![bn.mean.into(), bn.var.into(), epsilon, normalisers.into()];
        to.for_each("normaliser", c, Traffic::of(2 * c, 0).writes_pairs(c), args);
        return normalisers;
    }
    let sums = sums(to, input);
    let (blocks, rows) = (int(row_blocks(input)), int(input.rows()));
    let args = vec![sums.into(), blocks, rows, Arg::Double(BN_EPSILON), normalisers.into()];
    to.blocks("moments_exact", c, combines(input, 0).writes_pairs(c), args);
    normalisers
}
