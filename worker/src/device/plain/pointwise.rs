//! Convolutions of kernel size 1 that read the same tensor, one after the other.

use super::conv2d;
use crate::device::memory::Memory;
use crate::device::{Float, Pointwise, PointwiseGrad, Tensor, Update, Window};

pub(in crate::device) fn forward<T: Float>(
    memory: &mut Memory<T>,
    input: Tensor,
    convs: [Pointwise; 3],
) {
    for Pointwise { weight, epilogue, output } in convs {
        conv2d::forward(memory, Window::POINT, input, weight, epilogue, output);
    }
}

pub(in crate::device) fn grad_input<T: Float>(
    memory: &mut Memory<T>,
    convs: [PointwiseGrad; 3],
    grad_input: Tensor,
) {
    let updates = [Update::Overwrite, Update::Add, Update::Add];
    for (PointwiseGrad { grad_output, weight }, update) in convs.into_iter().zip(updates) {
        conv2d::grad_input(memory, Window::POINT, grad_output, weight, update, grad_input);
    }
}

pub(in crate::device) fn grad_weight<T: Float>(
    memory: &mut Memory<T>,
    input: Tensor,
    convs: [PointwiseGrad; 3],
) {
    for PointwiseGrad { grad_output, weight } in convs {
        conv2d::grad_weight(memory, Window::POINT, input, grad_output, weight);
    }
}
