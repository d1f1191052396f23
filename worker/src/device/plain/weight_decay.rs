//! The derivative and the value of decay * sum(weight^2) / 2.

use crate::device::memory::Memory;
use crate::device::{Float, Span};

pub(in crate::device) fn apply<T: Float>(
    memory: &mut Memory<T>,
    decay: f64,
    weight: Span,
    grad_weight: Span,
    penalty: Span,
) {
    let decay = T::from_f64(decay);
    memory.write_span(grad_weight, |memory, grad| {
        for (grad, weight) in grad.iter_mut().zip(memory.span(weight)) {
            *grad += decay * *weight;
        }
    });
    let squares: f64 = memory.span(weight).iter().map(|weight| weight.to_f64().powi(2)).sum();
    memory.span_mut(penalty)[0] = T::from_f64(decay.to_f64() * squares / 2.0);
}
