//! What agreement means: the norm of the difference over the norm of the reference.

use hw2_common::layout::Tensors;

use super::Row;
use super::reference::{Case, Probe};

/// How large an error may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Of loss, logits and BN statistics.
    values: f64,
    /// Of gradients.
    gradients: f64,
}

impl Limits {
    /// For arithmetic in f64.
    pub(super) const F64: Self = Self { values: 1e-8, gradients: 1e-8 };

    /// For arithmetic in f32. In a large image some ReLU or arg-max is sure to fall the other way in
    /// f32, which moves a gradient by far more than rounding does.
    pub(super) fn f32(image_size: usize) -> Self {
        Self { values: 2e-4, gradients: if image_size <= 64 { 1e-4 } else { 0.1 } }
    }
}

/// Collects rows.
pub(super) struct Comparison {
    limits: Limits,
    pub(super) rows: Vec<Row>,
}

impl Comparison {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, rows: Vec::new() }
    }

    /// Logits (batch, classes) of an evaluation, and their loss.
    pub(super) fn evaluation(&mut self, case: &Case, logits: &[f64]) {
        let loss = cross_entropy(logits, &case.labels);
        self.values("evaluation loss", &[loss], &[case.eval.loss]);
        self.values("evaluation logits", logits, &case.eval.logits.concat());
    }

    /// Loss and logits (batch, classes) of a training step.
    pub(super) fn training(&mut self, case: &Case, loss: f64, logits: &[f64]) {
        self.values("training loss", &[loss], &[case.train.loss]);
        self.values("training logits", logits, &case.train.logits.concat());
    }

    /// The flat gradient.
    pub(super) fn gradients(&mut self, case: &Case, params: &Tensors, gradient: &[f64]) {
        for entry in params.entries() {
            if let Some(probe) = case.train.grad.get(&entry.name) {
                let name = format!("gradient of {}", entry.name);
                self.probe(name, &gradient[entry.range.clone()], probe, self.limits.gradients);
            }
        }
    }

    /// The flat BN statistics of the batch.
    pub(super) fn statistics(&mut self, case: &Case, buffers: &Tensors, statistics: &[f64]) {
        for entry in buffers.entries() {
            let Some((bn, part)) = entry.name.rsplit_once(".running_") else { continue };
            if let Some(moments) = case.train.batch_stats.get(bn) {
                let probe = if part == "mean" { &moments.mean } else { &moments.var };
                let name = format!("{part} of {bn}");
                self.probe(name, &statistics[entry.range.clone()], probe, self.limits.values);
            }
        }
    }

    fn values(&mut self, tensor: &str, ours: &[f64], reference: &[f64]) {
        self.row(tensor.into(), relative(ours, reference), None, self.limits.values);
    }

    fn probe(&mut self, tensor: String, ours: &[f64], probe: &Probe, limit: f64) {
        let values: Vec<f64> = probe.at.iter().map(|at| ours[*at]).collect();
        let l2_error = relative(&[norm(ours.iter().copied())], &[probe.l2]);
        self.row(tensor, relative(&values, &probe.value), Some(l2_error), limit);
    }

    fn row(&mut self, tensor: String, error: f64, l2_error: Option<f64>, limit: f64) {
        // Written so that a NaN fails.
        let passed = error <= limit && l2_error.is_none_or(|error| error <= limit);
        self.rows.push(Row { tensor, error, l2_error, limit, passed });
    }
}

/// |ours - reference| / |reference|, or the difference itself from a reference of zeros.
fn relative(ours: &[f64], reference: &[f64]) -> f64 {
    let difference = norm(ours.iter().zip(reference).map(|(a, b)| a - b));
    match norm(reference.iter().copied()) {
        0.0 => difference,
        size => difference / size,
    }
}

fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|value| value * value).sum::<f64>().sqrt()
}

/// Mean over rows of -ln softmax(row)[label].
fn cross_entropy(logits: &[f64], labels: &[u32]) -> f64 {
    let classes = logits.len() / labels.len();
    let losses = logits.chunks(classes).zip(labels).map(|(row, label)| {
        let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = row.iter().map(|z| (z - largest).exp()).sum();
        sum.ln() - (row[*label as usize] - largest)
    });
    losses.sum::<f64>() / labels.len() as f64
}
