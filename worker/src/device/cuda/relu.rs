//! max(0, x), backward: the gradient passes where the result is positive.

use super::launch::{Traffic, int, matrix, numbers};
use super::lower::Lowering;
use crate::device::Tensor;

pub(super) fn backward(to: &mut Lowering, output: Tensor, grad: Tensor) {
    let args = vec![output.into(), grad.into(), matrix(output), int(grad.ld)];
    let count = numbers(output);
    to.for_each("relu_backward", count, Traffic::default().reads(output).updates(grad), args);
}
