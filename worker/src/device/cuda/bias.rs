//! A number per channel, added to every pixel.

use super::launch::{Traffic, int, matrix, numbers};
use super::lower::{Lowering, row_blocks};
use crate::device::{Format, Span, Tensor};

/// With a ReLU after it if `relu`.
pub(super) fn add(to: &mut Lowering, bias: Span, tensor: Tensor, relu: bool) {
    let mut args = vec![tensor.into(), bias.into(), matrix(tensor)];
    let traffic = Traffic::default().updates(tensor).reads(bias);
    // Activations may be in full themselves, and then either kernel does.
    let kernel = match tensor.buffer.format {
        Format::Full if !relu => "add_bias_full",
        _ => {
            args.push(int(usize::from(relu)));
            "add_bias"
        }
    };
    to.for_each(kernel, numbers(tensor), traffic, args);
}

pub(super) fn backward(to: &mut Lowering, grad_output: Tensor, grad_bias: Span) {
    let blocks = row_blocks(grad_output);
    let sums = to.pairs(grad_output.shape.c * blocks);
    let args = vec![grad_output.into(), sums.into(), matrix(grad_output)];
    let c = grad_output.shape.c;
    let traffic = Traffic::default().reads(grad_output).writes_pairs(c * blocks);
    to.over_rows("bias_of_blocks", grad_output, traffic, args);
    let args = vec![sums.into(), int(blocks), grad_bias.into()];
    to.blocks(
        "bias_backward",
        c,
        Traffic::default().writes(grad_bias).reads_pairs(c * blocks),
        args,
    );
}
