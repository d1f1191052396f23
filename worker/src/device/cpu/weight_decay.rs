//! The derivative and the value of decay * sum(weight^2) / 2.

use rayon::prelude::*;

use super::Team;
use super::chunks::sum_in_order;
use super::scratch::cut;
use crate::device::Span;
use crate::device::memory::Memory;

/// Weights whose squares are added before their sum is added to the others. A constant.
const CHUNK: usize = 4096;

pub(super) fn apply(
    memory: &mut Memory<f32>,
    team: &mut Team,
    decay: f64,
    weight: Span,
    grad_weight: Span,
    penalty: Span,
) {
    let decay = decay as f32;
    let partials = cut(&mut team.partials, weight.len.div_ceil(CHUNK));
    memory.write_span(grad_weight, |memory, grad| {
        let weights = memory.span(weight).par_chunks(CHUNK);
        let chunks = grad.par_chunks_mut(CHUNK).zip(weights).zip(partials.par_iter_mut());
        team.pool.install(|| {
            chunks.for_each(|((grad, weight), sum)| {
                *sum = team.simd.run(
                    #[inline(always)]
                    || decay_chunk(decay, grad, weight),
                );
            });
        });
    });
    let squares = sum_in_order(partials, 1)[0];
    memory.span_mut(penalty)[0] = (f64::from(decay) * squares / 2.0) as f32;
}

/// Returns the sum of squares, made in eight interleaved parts.
#[inline(always)]
fn decay_chunk(decay: f32, grad: &mut [f32], weight: &[f32]) -> f32 {
    let mut sums = [0.0; 8];
    for (grad, weight) in grad.chunks_mut(8).zip(weight.chunks(8)) {
        for (sum, (grad, weight)) in sums.iter_mut().zip(grad.iter_mut().zip(weight)) {
            *grad += decay * weight;
            *sum += weight * weight;
        }
    }
    sums.iter().sum()
}
