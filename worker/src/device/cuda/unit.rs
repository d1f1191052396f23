//! What a thread of a kernel moves at once: a number, or 16 bytes of them.

use super::launch::{Arg, int, number_bytes, to_int};
use crate::device::Tensor;

/// Bytes that one instruction moves.
const WIDE_BYTES: usize = 16;

/// In what a kernel counts channels and leading dimensions: so many numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unit(usize);

impl Unit {
    pub(super) const NUMBER: Self = Self(1);

    /// The largest for a kernel over all of `tensors`, of which the first says how large a number
    /// is.
    pub(super) fn of(tensors: &[Tensor]) -> Self {
        let width = wide_numbers(tensors[0]);
        let fits = |numbers: usize| numbers.is_multiple_of(width);
        let is_wide = tensors.iter().all(|of| fits(of.shape.c) && fits(of.ld) && fits(of.offset));
        if is_wide { Self(width) } else { Self::NUMBER }
    }

    pub(super) fn is_wide(self) -> bool {
        self.0 > 1
    }

    /// The name of the kernel, of which there are two.
    pub(super) fn kernel(self, narrow: &'static str, wide: &'static str) -> &'static str {
        if self.is_wide() { wide } else { narrow }
    }

    /// `numbers` in this unit.
    pub(super) fn count(self, numbers: usize) -> usize {
        numbers / self.0
    }

    /// The same as an argument.
    pub(super) fn int(self, numbers: usize) -> Arg {
        int(self.count(numbers))
    }

    /// `struct Matrix` of the kernels: pixels, channels, leading dimension.
    pub(super) fn matrix(self, tensor: Tensor) -> Arg {
        let sizes = [tensor.rows(), self.count(tensor.shape.c), self.count(tensor.ld)];
        Arg::Ints(sizes.map(to_int).to_vec())
    }
}

/// Numbers of `tensor` in 16 bytes.
pub(super) fn wide_numbers(tensor: Tensor) -> usize {
    WIDE_BYTES / number_bytes(tensor.buffer.format)
}
