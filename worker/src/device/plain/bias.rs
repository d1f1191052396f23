//! A number per channel, added to every pixel.

use crate::device::memory::{Memory, rows_mut};
use crate::device::{Float, Span, Tensor};

pub(in crate::device) fn add<T: Float>(memory: &mut Memory<T>, bias: Span, tensor: Tensor) {
    memory.write(tensor, |memory, out| {
        for row in rows_mut(out, tensor) {
            for (out, bias) in row.iter_mut().zip(memory.span(bias)) {
                *out += *bias;
            }
        }
    });
}

pub(in crate::device) fn backward<T: Float>(
    memory: &mut Memory<T>,
    grad_output: Tensor,
    grad_bias: Span,
) {
    let mut sums = vec![0.0; grad_output.shape.c];
    for row in memory.view(grad_output).rows() {
        for (sum, grad) in sums.iter_mut().zip(row) {
            *sum += grad.to_f64();
        }
    }
    for (out, sum) in memory.span_mut(grad_bias).iter_mut().zip(sums) {
        *out = T::from_f64(sum);
    }
}
