//! The gradient of a bias: the sum over all pixels.

use rayon::prelude::*;

use super::Team;
use super::chunks::{chunk_count, chunk_len, sum_in_order};
use super::scratch::cut;
use crate::device::memory::{Memory, rows};
use crate::device::{Span, Tensor};

pub(super) fn backward(
    memory: &mut Memory<f32>,
    team: &mut Team,
    grad_output: Tensor,
    grad_bias: Span,
) {
    let c = grad_output.shape.c;
    let partials = cut(&mut team.partials, chunk_count(grad_output) * c);
    let chunks = memory.view(grad_output).data.par_chunks(chunk_len(grad_output));
    team.pool.install(|| {
        chunks.zip(partials.par_chunks_mut(c)).for_each(|(grad, sums)| {
            team.simd.run(
                #[inline(always)]
                || sum_rows(rows(grad, grad_output), sums),
            );
        });
    });
    let sums = sum_in_order(partials, c);
    let out = memory.span_mut(grad_bias).iter_mut();
    out.zip(sums).for_each(|(out, sum)| *out = sum as f32);
}

#[inline(always)]
fn sum_rows<'a>(rows: impl Iterator<Item = &'a [f32]>, sums: &mut [f32]) {
    sums.fill(0.0);
    for row in rows {
        sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
    }
}
