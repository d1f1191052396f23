//! Convolutions of kernel size 1 that read the same tensor, one after the other.

use super::{Team, conv2d};
use crate::device::memory::Memory;
use crate::device::{Pointwise, PointwiseGrad, Tensor, Update, Window};

pub(super) fn forward(
    memory: &mut Memory<f32>,
    team: &mut Team,
    input: Tensor,
    convs: [Pointwise; 3],
) {
    for Pointwise { weight, epilogue, output } in convs {
        conv2d::forward(memory, team, Window::POINT, input, weight, epilogue, output);
    }
}

pub(super) fn grad_input(
    memory: &mut Memory<f32>,
    team: &mut Team,
    convs: [PointwiseGrad; 3],
    grad_input: Tensor,
) {
    let updates = [Update::Overwrite, Update::Add, Update::Add];
    for (PointwiseGrad { grad_output, weight }, update) in convs.into_iter().zip(updates) {
        conv2d::grad_input(memory, team, Window::POINT, grad_output, weight, update, grad_input);
    }
}

pub(super) fn grad_weight(
    memory: &mut Memory<f32>,
    team: &mut Team,
    input: Tensor,
    convs: [PointwiseGrad; 3],
) {
    for PointwiseGrad { grad_output, weight } in convs {
        conv2d::grad_weight(memory, team, Window::POINT, input, grad_output, weight);
    }
}
