//! A number per channel, added to every pixel.

use super::launch::{Traffic, int, matrix, numbers};
use super::lower::{Lowering, row_blocks};
use crate::device::{Span, Tensor};

/// With a ReLU after it if `relu`.
pub(super) fn add(to: &mut Lowering, bias: Span, tensor: Tensor, relu: bool) {
    let args = vec![tensor.into(), bias.into(), matrix(tensor), int(usize::from(relu))];
    let count = numbers(tensor);
    to.for_each("add_bias", count, Traffic::of(count, count), args);
}

pub(super) fn backward(to: &mut Lowering, grad_output: Tensor, grad_bias: Span) {
    let blocks = row_blocks(grad_output);
    let sums = to.pairs(grad_output.shape.c * blocks);
    let args = vec![grad_output.into(), sums.into(), matrix(grad_output)];
    let c = grad_output.shape.c;
    let traffic = Traffic::of(numbers(grad_output), 0).writes_pairs(c * blocks);
    to.over_rows("bias_of_blocks", grad_output, traffic, args);
    let args = vec![sums.into(), int(blocks), grad_bias.into()];
    to.blocks("bias_backward", c, Traffic::of(0, c).reads_pairs(c * blocks), args);
}
