//! A number per channel, added to every pixel.

use super::launch::{Traffic, int, matrix, numbers};
use super::lower::{Lowering, row_blocks};
use super::unit::Unit;
use crate::device::{Format, Span, Tensor};

/// With a ReLU after it if `relu`.
pub(super) fn add(to: &mut Lowering, bias: Span, tensor: Tensor, relu: bool) {
    let traffic = Traffic::default().updates(tensor).reads(bias);
    // Activations may be in full themselves, and then either kernel does.
    if tensor.buffer.format == Format::Full && !relu {
        let args = vec![tensor.into(), bias.into(), matrix(tensor)];
        to.for_each("add_bias_full", numbers(tensor), traffic, args);
        return;
    }
    let unit = Unit::of(&[tensor]);
    let args = vec![tensor.into(), bias.into(), unit.matrix(tensor), int(usize::from(relu))];
    let kernel = unit.kernel("add_bias", "add_bias_wide");
    to.for_each(kernel, unit.count(numbers(tensor)), traffic, args);
}

pub(super) fn backward(to: &mut Lowering, grad_output: Tensor, grad_bias: Span) {
    let unit = Unit::of(&[grad_output]);
    let blocks = row_blocks(unit, grad_output);
    let sums = to.pairs(grad_output.shape.c * blocks);
    let args = vec![grad_output.into(), sums.into(), unit.matrix(grad_output)];
    let c = grad_output.shape.c;
    let traffic = Traffic::default().reads(grad_output).writes_pairs(c * blocks);
    let kernel = unit.kernel("bias_of_blocks", "bias_of_blocks_wide");
    to.over_rows(unit, kernel, grad_output, traffic, args);
    let args = vec![sums.into(), int(blocks), grad_bias.into()];
    to.blocks(
        "bias_backward",
        c,
        Traffic::default().writes(grad_bias).reads_pairs(c * blocks),
        args,
    );
}
