//! Convolution with padding SAME, its epilogues, and its two gradients.
//!
//! output(n, oy, ox, co) = sum over ky, kx, ci of
//!     input(n, oy * stride + ky - padding, ox * stride + kx - padding, ci) * weight(ky, kx, ci, co)

use super::{batch_norm, bias, cast};
use crate::device::memory::{Memory, rows_mut};
use crate::device::{Epilogue, Float, Span, Tensor, Update, Window};

/// Calls `visit` with every product of the sum above: the indices of the output pixel, of the input
/// pixel (n, y, x), and of the first weight (ky, kx, 0, 0).
fn taps(
    window: Window,
    input: Tensor,
    output: Tensor,
    mut visit: impl FnMut([usize; 3], [usize; 3], usize),
) {
    let Window { kernel_size, stride } = window;
    let (top, left) = (window.padding(input.shape.h), window.padding(input.shape.w));
    for n in 0..output.n {
        for oy in 0..output.shape.h {
            for ox in 0..output.shape.w {
                for ky in 0..kernel_size {
                    for kx in 0..kernel_size {
                        let (y, x) = (oy * stride + ky, ox * stride + kx);
                        let (Some(y), Some(x)) = (y.checked_sub(top), x.checked_sub(left)) else {
                            continue;
                        };
                        if y < input.shape.h && x < input.shape.w {
                            let tap = ky * kernel_size + kx;
                            let weight = tap * input.shape.c * output.shape.c;
                            visit([n, oy, ox], [n, y, x], weight);
                        }
                    }
                }
            }
        }
    }
}

pub(in crate::device) fn forward<T: Float>(
    memory: &mut Memory<T>,
    window: Window,
    input: Tensor,
    weight: Span,
    epilogue: Epilogue,
    output: Tensor,
) {
    let (ci, co) = (input.shape.c, output.shape.c);
    memory.write(output, |memory, out| {
        let (input, weight) = (memory.view(input), memory.span(weight));
        rows_mut(out, output).for_each(|row| row.fill(T::ZERO));
        taps(window, input.tensor, output, |o, [n, y, x], first| {
            let out = &mut out[output.pixel(o)..][..co];
            let weight = weight[first..][..ci * co].chunks(co);
            for (value, weight) in input.pixel(n, y, x).iter().zip(weight) {
                for (out, weight) in out.iter_mut().zip(weight) {
                    *out += *value * *weight;
                }
            }
        });
    });
    match epilogue {
        Epilogue::None => {}
        Epilogue::Bias(span) => bias::add(memory, span, output),
        Epilogue::BiasRelu(span) => {
            bias::add(memory, span, output);
            memory.write(output, |_, out| {
                for value in rows_mut(out, output).flatten() {
                    *value = if *value > T::ZERO { *value } else { T::ZERO };
                }
            });
        }
        Epilogue::Moments { mean, var } => {
            // The moments of what is there to be normalised.
            cast::round(memory, output.into());
            batch_norm::moments(memory, output, mean, var);
        }
    }
}

pub(in crate::device) fn grad_input<T: Float>(
    memory: &mut Memory<T>,
    window: Window,
    grad_output: Tensor,
    weight: Span,
    update: Update,
    grad_input: Tensor,
) {
    let (ci, co) = (grad_input.shape.c, grad_output.shape.c);
    memory.write(grad_input, |memory, out| {
        let (grad_output, weight) = (memory.view(grad_output), memory.span(weight));
        if update == Update::Overwrite {
            rows_mut(out, grad_input).for_each(|row| row.fill(T::ZERO));
        }
        taps(window, grad_input, grad_output.tensor, |[n, oy, ox], i, first| {
            let grad = grad_output.pixel(n, oy, ox);
            let out = &mut out[grad_input.pixel(i)..][..ci];
            for (out, weight) in out.iter_mut().zip(weight[first..][..ci * co].chunks(co)) {
                *out += grad.iter().zip(weight).map(|(grad, weight)| *grad * *weight).sum();
            }
        });
    });
}

pub(in crate::device) fn grad_weight<T: Float>(
    memory: &mut Memory<T>,
    window: Window,
    input: Tensor,
    grad_output: Tensor,
    grad_weight: Span,
) {
    let (ci, co) = (input.shape.c, grad_output.shape.c);
    memory.write_span(grad_weight, |memory, out| {
        let (input, grad_output) = (memory.view(input), memory.view(grad_output));
        out.fill(T::ZERO);
        taps(window, input.tensor, grad_output.tensor, |[n, oy, ox], [_, y, x], first| {
            let grad = grad_output.pixel(n, oy, ox);
            let out = out[first..][..ci * co].chunks_mut(co);
            for (value, out) in input.pixel(n, y, x).iter().zip(out) {
                for (out, grad) in out.iter_mut().zip(grad) {
                    *out += *value * *grad;
                }
            }
        });
    });
}
