//! Batch normalisation with the ReLU that follows it; see [`crate::device::plain::batch_norm`].

use super::launch::{Arg, Place, Traffic, int};
use super::lower::{Lowering, row_blocks};
use super::unit::Unit;
use crate::device::{BN_EPSILON, BatchNorm, Span, Tensor};

/// Over at most so many rows moments and gradients are made in all their digits.
const FEW_ROWS: usize = 1024;

pub(super) fn moments(to: &mut Lowering, input: Tensor, mean: Span, var: Span) {
    let sums = sums(to, input);
    let (blocks, rows) = (int(row_blocks(unit(&[input]), input)), int(input.rows()));
    let args = vec![sums.into(), blocks, rows, mean.into(), var.into()];
    to.blocks(
        "moments",
        input.shape.c,
        combines(unit(&[input]), input).writes(mean).writes(var),
        args,
    );
}

/// What a kernel over all of `tensors` reads at once: those that read 16 bytes sum up in f32.
fn unit(tensors: &[Tensor]) -> Unit {
    if tensors[0].rows() > FEW_ROWS { Unit::of(tensors) } else { Unit::NUMBER }
}

/// Sums of x and x^2 over each block of rows.
fn sums(to: &mut Lowering, input: Tensor) -> Place {
    let unit = unit(&[input]);
    let sums = to.pairs(input.shape.c * row_blocks(unit, input));
    let args = vec![input.into(), sums.into(), unit.matrix(input)];
    let kernel = unit.kernel("moments_of_blocks", "moments_of_blocks_wide");
    to.over_rows(unit, kernel, input, sums_up(unit, input).reads(input), args);
    sums
}

/// Writes a pair for each block and channel.
fn sums_up(unit: Unit, input: Tensor) -> Traffic {
    Traffic::default().writes_pairs(input.shape.c * row_blocks(unit, input))
}

/// Reads these pairs.
fn combines(unit: Unit, input: Tensor) -> Traffic {
    Traffic::default().reads_pairs(input.shape.c * row_blocks(unit, input))
}

/// Reads mean, variance, weight and bias.
fn reads_channels(traffic: Traffic, bn: BatchNorm) -> Traffic {
    [bn.mean, bn.var, bn.weight, bn.bias].into_iter().fold(traffic, Traffic::reads)
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
    let unit = unit(&[input, output]);
    args.extend([unit.matrix(input), unit.int(output.ld)]);
    let traffic = reads_channels(Traffic::default().reads(input).writes(output), bn);
    let kernel = unit.kernel("batch_norm_relu", "batch_norm_relu_wide");
    to.over_rows(unit, kernel, input, traffic, args);
}

pub(super) fn relu_backward(
    to: &mut Lowering,
    bn: BatchNorm,
    input: Tensor,
    (grad_output, grad_input): (Tensor, Tensor),
    grad_weight: Span,
    grad_bias: Span,
) {
    let c = input.shape.c;
    let unit = unit(&[input, grad_output, grad_input]);
    let (blocks, rows) = (row_blocks(unit, input), input.rows());
    let mut common = channels(bn);
    let mut pairs = 0;
    if !unit.is_wide() {
        common.push(normalisers(to, bn, input).into());
        pairs = c;
    }

    let sums = to.pairs(c * blocks);
    let mut args = vec![input.into(), grad_output.into()];
    args.extend(common.clone());
    args.extend([unit.matrix(input), unit.int(grad_output.ld), sums.into()]);
    let traffic = reads_channels(sums_up(unit, input).reads(input).reads(grad_output), bn);
    let kernel = unit.kernel("batch_norm_sums", "batch_norm_sums_wide");
    to.over_rows(unit, kernel, input, traffic.reads_pairs(pairs), args);

    let means = to.pairs(c);
    let mut args = vec![sums.into(), int(blocks), int(rows), means.into()];
    args.extend([grad_weight, grad_bias].map(Arg::from));
    let traffic = combines(unit, input).writes_pairs(c).writes(grad_weight).writes(grad_bias);
    to.blocks("batch_norm_means", c, traffic, args);

    let mut args = vec![input.into(), grad_output.into(), grad_input.into()];
    args.extend(common);
    args.extend([means.into(), unit.matrix(input)]);
    args.extend([grad_output.ld, grad_input.ld].map(|ld| unit.int(ld)));
    let traffic = Traffic::default().reads(input).reads(grad_output).writes(grad_input);
    let traffic = reads_channels(traffic, bn).reads_pairs(pairs + c);
    let kernel = unit.kernel("batch_norm_backward", "batch_norm_backward_wide");
    to.over_rows(unit, kernel, input, traffic, args);
}

/// Mean and 1 / sqrt(var + epsilon) of each channel in f64.
fn normalisers(to: &mut Lowering, bn: BatchNorm, input: Tensor) -> Place {
    let c = input.shape.c;
    let normalisers = to.pairs(c);
    if input.rows() > FEW_ROWS {
        let epsilon = Arg::Double(BN_EPSILON);
        let args = vec![bn.mean.into(), bn.var.into(), epsilon, normalisers.into()];
        let traffic = Traffic::default().reads(bn.mean).reads(bn.var).writes_pairs(c);
        to.for_each("normaliser", c, traffic, args);
        return normalisers;
    }
    let sums = sums(to, input);
    let (blocks, rows) = (int(row_blocks(unit(&[input]), input)), int(input.rows()));
    let args = vec![sums.into(), blocks, rows, Arg::Double(BN_EPSILON), normalisers.into()];
    to.blocks("moments_exact", c, combines(unit(&[input]), input).writes_pairs(c), args);
    normalisers
}
