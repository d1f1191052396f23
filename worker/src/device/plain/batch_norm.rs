//! Batch normalisation with the ReLU that follows it.
//!
//! With m = mean, s = sqrt(var + epsilon), all per channel:
//!
//! ```text
//!     output = max(0, z),  z = (x - m) / s * weight + bias
//! and, with g = grad_output where z > 0 and 0 elsewhere, and <.> the mean over (n, h, w):
//!     grad_bias = sum(g),  grad_weight = sum(g * (x - m) / s)
//!     grad_input = weight / s * (g - <g> - (x - m) / s * <g * (x - m) / s>)
//! ```
//!
//! Over two rows, half of whose difference is d, grad_input is epsilon / (d^2 + epsilon) of the g
//! that it is made from, so that m and s rounded to f32 would leave two digits of it. Backward
//! therefore computes in f64, with m and s from the input itself.

use crate::device::memory::{Memory, View, rows_mut};
use crate::device::{BN_EPSILON, BatchNorm, Float, Span, Tensor};

pub(in crate::device) fn moments<T: Float>(
    memory: &mut Memory<T>,
    input: Tensor,
    mean: Span,
    var: Span,
) {
    let (means, vars) = moments_of(memory.view(input));
    round_to(&means, memory.span_mut(mean));
    round_to(&vars, memory.span_mut(var));
}

fn moments_of<T: Float>(input: View<'_, T>) -> (Vec<f64>, Vec<f64>) {
    let count = input.tensor.rows() as f64;
    let mut means = vec![0.0; input.tensor.shape.c];
    let mut vars = means.clone();
    for row in input.rows() {
        for (mean, x) in means.iter_mut().zip(row) {
            *mean += x.to_f64() / count;
        }
    }
    for row in input.rows() {
        for ((var, mean), x) in vars.iter_mut().zip(&means).zip(row) {
            *var += (x.to_f64() - *mean).powi(2) / count;
        }
    }
    (means, vars)
}

/// Sums are made in f64, whatever T is.
fn round_to<T: Float>(values: &[f64], out: &mut [T]) {
    for (out, value) in out.iter_mut().zip(values) {
        *out = T::from_f64(*value);
    }
}

/// What the ReLU sees of one channel, in T, which says where it passes, forward and backward.
#[derive(Clone, Copy)]
struct Affine<T> {
    mean: T,
    /// weight / s.
    scale: T,
    bias: T,
}

impl<T: Float> Affine<T> {
    /// z.
    fn of(&self, x: T) -> T {
        (x - self.mean) * self.scale + self.bias
    }
}

fn affine<T: Float>(memory: &Memory<T>, bn: BatchNorm) -> Vec<Affine<T>> {
    let (mean, var) = (memory.span(bn.mean), memory.span(bn.var));
    let (weight, bias) = (memory.span(bn.weight), memory.span(bn.bias));
    let channel = |c: usize| Affine {
        mean: mean[c],
        scale: weight[c] * T::from_f64(inverse_std(var[c].to_f64())),
        bias: bias[c],
    };
    (0..mean.len()).map(channel).collect()
}

/// 1 / s.
fn inverse_std(var: f64) -> f64 {
    1.0 / (var + BN_EPSILON).sqrt()
}

pub(in crate::device) fn relu_forward<T: Float>(
    memory: &mut Memory<T>,
    bn: BatchNorm,
    input: Tensor,
    output: Tensor,
) {
    memory.write(output, |memory, out| {
        let affine = affine(memory, bn);
        for (out, x) in rows_mut(out, output).zip(memory.view(input).rows()) {
            for ((out, x), affine) in out.iter_mut().zip(x).zip(&affine) {
                let z = affine.of(*x);
                *out = if z > T::ZERO { z } else { T::ZERO };
            }
        }
    });
}

pub(in crate::device) fn relu_backward<T: Float>(
    memory: &mut Memory<T>,
    bn: BatchNorm,
    input: Tensor,
    grad: Tensor,
    grad_weight: Span,
    grad_bias: Span,
) {
    let count = input.rows() as f64;
    let mut weights = vec![0.0; input.shape.c];
    let mut biases = vec![0.0; input.shape.c];
    memory.write(grad, |memory, g| {
        let affine = affine(memory, bn);
        let (means, vars) = moments_of(memory.view(input));
        let inverse_stds: Vec<f64> = vars.into_iter().map(inverse_std).collect();
        let normalised = |c: usize, x: T| (x.to_f64() - means[c]) * inverse_stds[c];
        for (g, x) in rows_mut(g, grad).zip(memory.view(input).rows()) {
            for (c, affine) in affine.iter().enumerate() {
                g[c] = if affine.of(x[c]) > T::ZERO { g[c] } else { T::ZERO };
                weights[c] += g[c].to_f64() * normalised(c, x[c]);
                biases[c] += g[c].to_f64();
            }
        }
        let weight = memory.span(bn.weight);
        for (g, x) in rows_mut(g, grad).zip(memory.view(input).rows()) {
            for (c, g) in g.iter_mut().enumerate() {
                let (mean_g, mean_gx) = (biases[c] / count, weights[c] / count);
                let centred = g.to_f64() - mean_g - normalised(c, x[c]) * mean_gx;
                *g = T::from_f64(weight[c].to_f64() * inverse_stds[c] * centred);
            }
        }
    });
    round_to(&weights, memory.span_mut(grad_weight));
    round_to(&biases, memory.span_mut(grad_bias));
}
