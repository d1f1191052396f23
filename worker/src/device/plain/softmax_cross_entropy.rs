//! Softmax, cross-entropy and their gradient, row by row.
//!
//! With p = exp(z - max z) / sum(exp(z - max z)): loss = mean over rows of -ln p(label), and
//! grad_logits = (p - [class = label]) / n.

use crate::device::memory::{Memory, rows_mut};
use crate::device::{Float, Span, Tensor};

pub(in crate::device) fn apply<T: Float>(
    memory: &mut Memory<T>,
    logits: Tensor,
    labels: Span,
    grad_logits: Tensor,
    loss: Span,
    top1: Span,
) {
    let n = logits.n as f64;
    let (mut losses, mut hits) = (0.0, 0.0);
    memory.write(grad_logits, |memory, out| {
        let rows = memory.view(logits).rows().zip(memory.span(labels));
        for (out, (row, label)) in rows_mut(out, grad_logits).zip(rows) {
            let label = label.to_f64() as usize;
            let row: Vec<f64> = row.iter().map(|z| z.to_f64()).collect();
            let largest = first_largest(&row);
            let exps: Vec<f64> = row.iter().map(|z| libm::exp(z - row[largest])).collect();
            let sum: f64 = exps.iter().sum();
            losses += libm::log(sum) - (row[label] - row[largest]);
            hits += f64::from(largest == label && row.iter().all(|z| z.is_finite()));
            for (class, (out, exp)) in out.iter_mut().zip(&exps).enumerate() {
                *out = T::from_f64((exp / sum - f64::from(class == label)) / n);
            }
        }
    });
    memory.span_mut(loss)[0] = T::from_f64(losses / n);
    memory.span_mut(top1)[0] = T::from_f64(hits);
}

/// Index of the first largest number.
fn first_largest(row: &[f64]) -> usize {
    (1..row.len()).fold(0, |best, index| if row[index] > row[best] { index } else { best })
}
