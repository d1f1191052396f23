//! What agreement means: the norm of the difference over the norm of the reference.

use hw2_common::layout::Tensors;

use super::reference::{Case, Probe};
use super::report::{Outcome, Row};

/// What a gradient may be off where a decision fell otherwise or rounding was magnified.
const EXCUSED_MAX: f64 = 0.1;

/// How large an error may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Limits {
    /// Of loss, logits and BN statistics.
    values: f64,
    /// Of gradients.
    gradients: f64,
}

impl Limits {
    /// For arithmetic in f64.
    pub(super) const F64: Self = Self { values: 1e-8, gradients: 1e-8 };

    /// For arithmetic in f32. In a large image some ReLU or arg-max is sure to fall the other way
    /// in f32, which moves a gradient by far more than rounding does.
    pub(super) fn f32(image_size: usize) -> Self {
        Self { values: 2e-4, gradients: if image_size <= 64 { 1e-4 } else { EXCUSED_MAX } }
    }
}

/// Collects rows.
#[derive(PartialEq)]
pub(super) struct Comparison {
    limits: Limits,
    /// Of loss, logits and BN statistics.
    pub(super) values: Vec<Row>,
    pub(super) gradients: Vec<Row>,
}

impl Comparison {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, values: Vec::new(), gradients: Vec::new() }
    }

    /// Logits (batch, classes) of an evaluation, and their loss.
    pub(super) fn evaluation(&mut self, case: &Case, logits: &[f64]) {
        let loss = cross_entropy(logits, &case.labels);
        self.whole("evaluation loss", &[loss], &[case.eval.loss]);
        self.whole("evaluation logits", logits, &case.eval.logits.concat());
    }

    /// Loss and logits (batch, classes) of a training step.
    pub(super) fn training(&mut self, case: &Case, loss: f64, logits: &[f64]) {
        self.whole("training loss", &[loss], &[case.train.loss]);
        self.whole("training logits", logits, &case.train.logits.concat());
    }

    /// The flat gradient.
    pub(super) fn gradients(&mut self, case: &Case, params: &Tensors, gradient: &[f64]) {
        for entry in params.entries() {
            if let Some(probe) = case.train.grad.get(&entry.name) {
                let name = format!("gradient of {}", entry.name);
                let values = &gradient[entry.range.clone()];
                self.gradients.push(probed(name, values, probe, self.limits.gradients));
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
                let values = &statistics[entry.range.clone()];
                self.values.push(probed(name, values, probe, self.limits.values));
            }
        }
    }

    fn whole(&mut self, tensor: &str, ours: &[f64], reference: &[f64]) {
        self.values.push(row(tensor.into(), relative(ours, reference), None, self.limits.values));
    }
}

/// Excuses gradients that are not far beyond their limits. To be called where neither an operation
/// of the device nor the network in f64 is wrong, so that only rounding can have come to this:
/// through decisions, if some of them have `flipped`.
pub(super) fn excuse(gradients: &mut [Row], flipped: bool) {
    for row in gradients.iter_mut().filter(|row| row.outcome == Outcome::Beyond) {
        if within(row.error, row.l2_error, EXCUSED_MAX) {
            row.outcome = if flipped { Outcome::Flipped } else { Outcome::Magnified };
        }
    }
}

fn probed(tensor: String, ours: &[f64], probe: &Probe, limit: f64) -> Row {
    let values: Vec<f64> = probe.at.iter().map(|at| ours[*at]).collect();
    let l2_error = relative(&[norm(ours.iter().copied())], &[probe.l2]);
    row(tensor, relative(&values, &probe.value), Some(l2_error), limit)
}

fn row(tensor: String, error: f64, l2_error: Option<f64>, limit: f64) -> Row {
    let within = within(error, l2_error, limit);
    let outcome = if within { Outcome::Within } else { Outcome::Beyond };
    Row { tensor, error, l2_error, limit, outcome }
}

/// Whether both are at most `limit`; a NaN is not.
fn within(error: f64, l2_error: Option<f64>, limit: f64) -> bool {
    error <= limit && l2_error.is_none_or(|error| error <= limit)
}

/// |ours - reference| / |reference|, or the difference itself from a reference of zeros.
pub(super) fn relative(ours: &[f64], reference: &[f64]) -> f64 {
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
