//! max(0, x), backward: the gradient passes where the result is positive.

use rayon::prelude::*;

use super::Team;
use super::chunks::chunk_len;
use crate::device::Tensor;
use crate::device::memory::{Memory, rows, rows_mut};

pub(super) fn backward(memory: &mut Memory<f32>, team: &Team, output: Tensor, grad: Tensor) {
    memory.write(grad, |memory, out| {
        let y = memory.view(output).data.par_chunks(chunk_len(output));
        let chunks = out.par_chunks_mut(chunk_len(grad)).zip(y);
        team.pool.install(|| {
            chunks.for_each(|(out, y)| {
                team.simd.run(
                    #[inline(always)]
                    || mask(rows_mut(out, grad).zip(rows(y, output))),
                );
            });
        });
    });
}

#[inline(always)]
fn mask<'a>(rows: impl Iterator<Item = (&'a mut [f32], &'a [f32])>) {
    for (out, y) in rows {
        out.iter_mut().zip(y).for_each(|(out, y)| *out = if *y > 0.0 { *out } else { 0.0 });
    }
}
