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

use crate::device::memory::{Memory, rows_mut};
use crate::device::{BN_EPSILON, BatchNorm, Float, Span, Tensor};

pub(in crate::device) fn moments<T: Float>(
    memory: &mut Memory<T>,
    input: Tensor,
    mean: Span,
    var: Span,
) {
    let count = input.rows() as f64;
    let mut means = vec![0.0; input.shape.c];
    let mut vars = vec![0.0; input.shape.c];
    for row in memory.view(input).rows() {
        for (mean, x) in means.iter_mut().zip(row) {
            *mean += x.to_f64() / count;
        }
    }
    for row in memory.view(input).rows() {
        for ((var, mean), x) in vars.iter_mut().zip(&means).zip(row) {
            *var += (x.to_f64() - *mean).powi(2) / count;
        }
    }
    round_to(&means, memory.span_mut(mean));
    round_to(&vars, memory.span_mut(var));
}

/// Sums are made in f64, whatever T is.
fn round_to<T: Float>(values: &[f64], out: &mut [T]) {
    for (out, value) in out.iter_mut().zip(values) {
        *out = T::from_f64(*value);
    }
}

/// The numbers of one channel.
#[derive(Clone, Copy)]
struct Channel<T> {
    mean: T,
    inverse_std: T,
    weight: T,
    bias: T,
}

impl<T: Float> Channel<T> {
    /// (x - m) / s.
    fn normalised(&self, x: T) -> T {
        (x - self.mean) * self.inverse_std
    }

    /// z.
    fn affine(&self, x: T) -> T {
        self.normalised(x) * self.weight + self.bias
    }
}

fn channels<T: Float>(memory: &Memory<T>, bn: BatchNorm) -> Vec<Channel<T>> {
    let (mean, var) = (memory.span(bn.mean), memory.span(bn.var));
    let (weight, bias) = (memory.span(bn.weight), memory.span(bn.bias));
    let channel = |c: usize| Channel {
        mean: mean[c],
        inverse_std: T::from_f64(1.0 / (var[c].to_f64() + BN_EPSILON).sqrt()),
        weight: weight[c],
        bias: bias[c],
    };
    (0..mean.len()).map(channel).collect()
}

pub(in crate::device) fn relu_forward<T: Float>(
    memory: &mut Memory<T>,
    bn: BatchNorm,
    input: Tensor,
    output: Tensor,
) {
    memory.write(output, |memory, out| {
        let channels = channels(memory, bn);
        for (out, x) in rows_mut(out, output).zip(memory.view(input).rows()) {
            for ((out, x), channel) in out.iter_mut().zip(x).zip(&channels) {
                let z = channel.affine(*x);
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
        let channels = channels(memory, bn);
        for (g, x) in rows_mut(g, grad).zip(memory.view(input).rows()) {
            for (c, channel) in channels.iter().enumerate() {
                g[c] = if channel.affine(x[c]) > T::ZERO { g[c] } else { T::ZERO };
                weights[c] += (g[c] * channel.normalised(x[c])).to_f64();
                biases[c] += g[c].to_f64();
            }
        }
        for (g, x) in rows_mut(g, grad).zip(memory.view(input).rows()) {
            for (c, channel) in channels.iter().enumerate() {
                let mean_g = T::from_f64(biases[c] / count);
                let mean_gx = T::from_f64(weights[c] / count);
                let centred = g[c] - mean_g - channel.normalised(x[c]) * mean_gx;
                g[c] = channel.weight * channel.inverse_std * centred;
            }
        }
    });
    round_to(&weights, memory.span_mut(grad_weight));
    round_to(&biases, memory.span_mut(grad_bias));
}
