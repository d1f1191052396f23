//! A tensor as chunks of a fixed number of pixels, for what needs no neighbours.

use crate::device::Tensor;

/// Pixels of a chunk. A constant, because sums are made chunk by chunk.
const CHUNK_ROWS: usize = 256;

/// Numbers from the beginning of one chunk of `tensor` to that of the next.
pub(super) fn chunk_len(tensor: Tensor) -> usize {
    CHUNK_ROWS * tensor.ld
}

/// Chunks of `tensor`.
pub(super) fn chunk_count(tensor: Tensor) -> usize {
    tensor.rows().div_ceil(CHUNK_ROWS)
}

/// Adds up the rows (len) of `partials` in order, in f64.
pub(super) fn sum_in_order(partials: &[f32], len: usize) -> Vec<f64> {
    let mut sums = vec![0.0; len];
    for partial in partials.chunks(len) {
        sums.iter_mut().zip(partial).for_each(|(sum, value)| *sum += f64::from(*value));
    }
    sums
}
