//! max(0, x), backward: the gradient passes where the result is positive.

use crate::device::memory::{Memory, rows_mut};
use crate::device::{Float, Tensor};

pub(in crate::device) fn backward<T: Float>(memory: &mut Memory<T>, output: Tensor, grad: Tensor) {
    memory.write(grad, |memory, out| {
        for (out, y) in rows_mut(out, grad).zip(memory.view(output).rows()) {
            for (out, y) in out.iter_mut().zip(y) {
                *out = if *y > T::ZERO { *out } else { T::ZERO };
            }
        }
    });
}
