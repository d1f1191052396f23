//! max(0, x), backward: the gradient passes where the result is positive.

use super::launch::{Traffic, numbers};
use super::lower::Lowering;
use super::unit::Unit;
use crate::device::Tensor;

pub(super) fn backward(to: &mut Lowering, output: Tensor, grad: Tensor) {
    let unit = Unit::of(&[output, grad]);
    let args = vec![output.into(), grad.into(), unit.matrix(output), unit.int(grad.ld)];
    let kernel = unit.kernel("relu_backward", "relu_backward_wide");
    let traffic = Traffic::default().reads(output).updates(grad);
    to.for_each(kernel, unit.count(numbers(output)), traffic, args);
}
