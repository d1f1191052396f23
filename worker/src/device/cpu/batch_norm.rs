//! Batch normalisation with the ReLU that follows it.

use rayon::prelude::*;

use super::Team;
use super::chunks::{chunk_count, chunk_len, sum_in_order};
use super::scratch::cut;
use crate::device::memory::{Memory, rows, rows_mut};
use crate::device::{BN_EPSILON, BatchNorm, Span, Tensor, plain};

/// With fewer rows than this, backward is left to the plain loops, which compute in f64: over two
/// rows the gradient is smaller than what f32 rounds off on the way, and over a few more it can be.
/// Forward here and there has the same bits, so that a ReLU that passed forward passes backward.
const FEW_ROWS: usize = 16;

/// Per-channel numbers (c), each a vector of its own, as SIMD wants them.
struct Channels {
    mean: Vec<f32>,
    inverse_std: Vec<f32>,
    /// weight / sqrt(var + epsilon).
    scale: Vec<f32>,
    bias: Vec<f32>,
}

impl Channels {
    fn new(memory: &Memory<f32>, bn: BatchNorm) -> Self {
        let inverse = |var: &f32| (1.0 / (f64::from(*var) + BN_EPSILON).sqrt()) as f32;
        let inverse_std: Vec<f32> = memory.span(bn.var).iter().map(inverse).collect();
        let weights = memory.span(bn.weight).iter();
        let scale = weights.zip(&inverse_std).map(|(weight, inverse)| weight * inverse).collect();
        let (mean, bias) = (memory.span(bn.mean).to_vec(), memory.span(bn.bias).to_vec());
        Self { mean, inverse_std, scale, bias }
    }
}

/// What the ReLU sees. Forward and backward must agree on its sign.
#[inline(always)]
fn affine(x: f32, mean: f32, scale: f32, bias: f32) -> f32 {
    (x - mean) * scale + bias
}

pub(super) fn relu_forward(
    memory: &mut Memory<f32>,
    team: &Team,
    bn: BatchNorm,
    input: Tensor,
    output: Tensor,
) {
    memory.write(output, |memory, out| {
        let channels = Channels::new(memory, bn);
        let x = memory.view(input).data.par_chunks(chunk_len(input));
        let chunks = out.par_chunks_mut(chunk_len(output)).zip(x);
        team.pool.install(|| {
            chunks.for_each(|(out, x)| {
                team.simd.run(
                    #[inline(always)]
                    || channels.forward(rows_mut(out, output).zip(rows(x, input))),
                );
            });
        });
    });
}

pub(super) fn relu_backward(
    memory: &mut Memory<f32>,
    team: &mut Team,
    bn: BatchNorm,
    input: Tensor,
    grad: Tensor,
    grad_weight: Span,
    grad_bias: Span,
) {
    if input.rows() < FEW_ROWS {
        plain::batch_norm::relu_backward(memory, bn, input, grad, grad_weight, grad_bias);
        return;
    }
    let c = input.shape.c;
    let partials = cut(&mut team.partials, chunk_count(input) * 2 * c);
    let (simd, pool) = (team.simd, &team.pool);
    let (weights, biases) = memory.write(grad, |memory, out| {
        let channels = Channels::new(memory, bn);
        let x = memory.view(input).data;
        pool.install(|| {
            let chunks = out.par_chunks(chunk_len(grad)).zip(x.par_chunks(chunk_len(input)));
            chunks.zip(partials.par_chunks_mut(2 * c)).for_each(|((g, x), sums)| {
                simd.run(
                    #[inline(always)]
                    || channels.sums(rows(g, grad).zip(rows(x, input)), sums),
                );
            });
        });
        let sums = sum_in_order(partials, 2 * c);
        let biases = sums[..c].to_vec();
        let weights = sums[c..].iter().zip(&channels.inverse_std);
        let weights: Vec<f64> = weights.map(|(sum, inverse)| sum * f64::from(*inverse)).collect();
        let correction = Correction::new(&channels, &weights, &biases, input.rows());
        pool.install(|| {
            let chunks = out.par_chunks_mut(chunk_len(grad)).zip(x.par_chunks(chunk_len(input)));
            chunks.for_each(|(g, x)| {
                let rows = rows_mut(g, grad).zip(rows(x, input));
                simd.run(
                    #[inline(always)]
                    || channels.backward(&correction, rows),
                );
            });
        });
        (weights, biases)
    });
    for (span, values) in [(grad_weight, weights), (grad_bias, biases)] {
        let out = memory.span_mut(span).iter_mut();
        out.zip(values).for_each(|(out, value)| *out = value as f32);
    }
}

/// What is subtracted from a gradient: <g> + (x - mean) * slope.
struct Correction {
    mean: Vec<f32>,
    /// <g * (x - mean) / s> / s.
    slope: Vec<f32>,
}

impl Correction {
    fn new(channels: &Channels, weights: &[f64], biases: &[f64], count: usize) -> Self {
        let count = count as f64;
        let slopes = weights.iter().zip(&channels.inverse_std);
        Self {
            mean: biases.iter().map(|sum| (sum / count) as f32).collect(),
            slope: slopes
                .map(|(sum, inverse)| (sum / count * f64::from(*inverse)) as f32)
                .collect(),
        }
    }
}

impl Channels {
    #[inline(always)]
    fn forward<'a>(&self, rows: impl Iterator<Item = (&'a mut [f32], &'a [f32])>) {
        for (out, x) in rows {
            forward_row(out, x, &self.mean, &self.scale, &self.bias);
        }
    }

    /// Sums of g and of g * (x - mean), with g the gradient where the ReLU passed, to `sums` (2,
    /// c).
    #[inline(always)]
    fn sums<'a>(&self, rows: impl Iterator<Item = (&'a [f32], &'a [f32])>, sums: &mut [f32]) {
        sums.fill(0.0);
        let (biases, weights) = sums.split_at_mut(self.mean.len());
        for (g, x) in rows {
            sum_row(biases, weights, g, x, [&self.mean, &self.scale, &self.bias]);
        }
    }

    #[inline(always)]
    fn backward<'a>(
        &self,
        correction: &Correction,
        rows: impl Iterator<Item = (&'a mut [f32], &'a [f32])>,
    ) {
        let channels = [&*self.mean, &self.scale, &self.bias, &correction.mean, &correction.slope];
        for (g, x) in rows {
            backward_row(g, x, channels);
        }
    }
}

// The loops over the channels of one pixel are functions of their own, whose arguments the compiler
// knows not to overlap; otherwise it would not vectorise them.

#[inline(always)]
fn forward_row(out: &mut [f32], x: &[f32], mean: &[f32], scale: &[f32], bias: &[f32]) {
    let n = out.len();
    let (x, mean, scale, bias) = (&x[..n], &mean[..n], &scale[..n], &bias[..n]);
    for c in 0..n {
        out[c] = affine(x[c], mean[c], scale[c], bias[c]).max(0.0);
    }
}

#[inline(always)]
fn sum_row(
    biases: &mut [f32],
    weights: &mut [f32],
    g: &[f32],
    x: &[f32],
    [mean, scale, bias]: [&[f32]; 3],
) {
    let n = biases.len();
    let (weights, g, x) = (&mut weights[..n], &g[..n], &x[..n]);
    let (mean, scale, bias) = (&mean[..n], &scale[..n], &bias[..n]);
    for c in 0..n {
        let passed = affine(x[c], mean[c], scale[c], bias[c]) > 0.0;
        let kept = if passed { g[c] } else { 0.0 };
        biases[c] += kept;
        weights[c] += kept * (x[c] - mean[c]);
    }
}

#[inline(always)]
fn backward_row(g: &mut [f32], x: &[f32], [mean, scale, bias, mean_g, slope]: [&[f32]; 5]) {
    let n = g.len();
    let (x, mean, scale, bias) = (&x[..n], &mean[..n], &scale[..n], &bias[..n]);
    let (mean_g, slope) = (&mean_g[..n], &slope[..n]);
    for c in 0..n {
        let passed = affine(x[c], mean[c], scale[c], bias[c]) > 0.0;
        let kept = if passed { g[c] } else { 0.0 };
        g[c] = scale[c] * (kept - mean_g[c] - (x[c] - mean[c]) * slope[c]);
    }
}
