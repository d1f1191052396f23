//! Multiplies by 0 or 1 / keep; word i of the layer's Philox stream makes decision i.
//!
//! The number with index i = ((n * h + y) * w + x) * c_len + c follows decision i, or, when whole
//! feature maps are dropped, decision n * c_len + c.

use hw2_common::rng::{Stream, unit};

use crate::device::memory::{Memory, rows_mut};
use crate::device::{DropoutCoordinates, Float, Mask, Tensor};

pub(in crate::device) fn apply<T: Float>(
    memory: &mut Memory<T>,
    mask: Mask,
    coordinates: DropoutCoordinates,
    tensor: Tensor,
) {
    let DropoutCoordinates { seed, step, replica } = coordinates;
    let stream = Stream::dropout(seed, step, replica, mask.layer);
    let pixels = tensor.shape.h * tensor.shape.w;
    let c = tensor.shape.c;
    let decisions = if mask.spatial { tensor.n * c } else { tensor.rows() * c };
    let factors = factors::<T>(stream, mask.keep, decisions);
    memory.write(tensor, |_, out| {
        for (index, row) in rows_mut(out, tensor).enumerate() {
            let first = if mask.spatial { index / pixels * c } else { index * c };
            for (out, factor) in row.iter_mut().zip(&factors[first..]) {
                *out *= *factor;
            }
        }
    });
}

/// 0 or 1 / keep for each decision.
fn factors<T: Float>(stream: Stream, keep: f32, decisions: usize) -> Vec<T> {
    let kept = T::from_f64(1.0 / f64::from(keep));
    let factor = |word| if unit(word) < keep { kept } else { T::ZERO };
    let blocks = u32::try_from(decisions.div_ceil(4)).expect("fewer than 2^34 decisions");
    (0..blocks).flat_map(|block| stream.block(block)).take(decisions).map(factor).collect()
}
