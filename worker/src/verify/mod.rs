//! Runs a reference file on a device and says how far off every tensor is.
//!
//! The first thing to run on new hardware. A reference file holds, for some sizes of the ten-layer
//! network, what PyTorch computed in f64; `golden/make_golden.py` makes one.

mod compare;
mod fill;
mod reference;

use std::collections::BTreeMap;

use hw2_common::layout::{ParamLayout, Tensors};
use hw2_common::model::{Block, ModelSpec, Network};
use serde::Serialize;

use crate::device::cpu::Cpu;
use crate::device::plain::Plain;
use crate::device::{Device, DeviceError, Float};
use crate::nn::Model;
use compare::{Comparison, Limits};
pub use fill::fill;
pub use reference::{Case, Reference};

/// What computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The specification in f64.
    PlainF64,
    /// The specification in f32.
    PlainF32,
    /// The fast CPU device.
    Cpu {
        /// 0 for one per core.
        threads: usize,
    },
}

/// How far off a device is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The device in words.
    pub device: String,
    /// Where the reference values come from.
    pub reference: String,
    /// In the order of the file.
    pub cases: Vec<CaseReport>,
    /// Whether every row of every case passed.
    pub passed: bool,
}

/// One case of a reference file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CaseReport {
    /// Its name.
    pub name: String,
    /// Images.
    pub batch: usize,
    /// Rows and columns of an image.
    pub image_size: usize,
    /// Classes.
    pub classes: usize,
    /// One for each tensor compared.
    pub rows: Vec<Row>,
}

/// One tensor compared with its reference.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// As `train loss` or `gradient of conv_stack1.conv1.weight`.
    pub tensor: String,
    /// Norm of the difference over the norm of the reference, over the values given.
    pub error: f64,
    /// Difference of the norms of the whole tensor over that of the reference, where it is given.
    pub l2_error: Option<f64>,
    /// What both may be at most.
    pub limit: f64,
    /// Whether they are.
    pub passed: bool,
}

/// Why a reference file could not be run.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The file cannot be read.
    #[error("cannot read the reference file {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not of the form that `make_golden.py` writes.
    #[error("the reference file is not of the form that make_golden.py writes: {0}")]
    Form(#[from] serde_json::Error),
    /// A case does not describe the ten-layer network.
    #[error("case `{case}` of the reference file: {problem}")]
    Case {
        /// Its name.
        case: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The device failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

/// Runs every case of `reference` on `target`.
///
/// # Errors
/// A case that describes another network, or a failing device. A wrong result is no error: it is in
/// the report.
pub fn run(reference: &Reference, target: Target) -> Result<Report, VerifyError> {
    let mut device = String::new();
    let mut cases = Vec::new();
    for case in &reference.cases {
        let f32_limits = Limits::f32(case.image_size);
        let rows = match target {
            Target::PlainF64 => run_case(Plain::<f64>::new(), case, Limits::F64, &mut device)?,
            Target::PlainF32 => run_case(Plain::<f32>::new(), case, f32_limits, &mut device)?,
            Target::Cpu { threads } => run_case(Cpu::new(threads)?, case, f32_limits, &mut device)?,
        };
        cases.push(CaseReport {
            name: case.name.clone(),
            batch: case.batch,
            image_size: case.image_size,
            classes: case.classes,
            rows,
        });
    }
    let passed = cases.iter().flat_map(|case| &case.rows).all(|row| row.passed);
    Ok(Report { device, reference: reference.made_by.clone(), cases, passed })
}

/// The ten-layer network with the sizes of `case`.
fn network(case: &Case) -> Result<Network, VerifyError> {
    let fail = |problem: String| VerifyError::Case { case: case.name.clone(), problem };
    let mut spec = ModelSpec { image_size: case.image_size, ..ModelSpec::default() };
    for block in &mut spec.blocks {
        if let Block::Dense { weight_decay, .. } = block {
            *weight_decay = case.weight_decay;
        }
    }
    let network = spec.network(case.classes).map_err(|error| fail(error.to_string()))?;
    case.check(&ParamLayout::new(&network)).map_err(fail)?;
    Ok(network)
}

/// Compares everything that `case` gives; leaves the device in words in `name`.
fn run_case<D: Device>(
    device: D,
    case: &Case,
    limits: Limits,
    name: &mut String,
) -> Result<Vec<Row>, VerifyError> {
    let network = network(case)?;
    let layout = ParamLayout::new(&network);
    let mut model = Model::new(device, &network, case.batch);
    *name = model.describe();
    let inputs: BTreeMap<&str, Vec<f32>> =
        case.order.iter().map(|tensor| (tensor.name.as_str(), tensor.values())).collect();
    model.load_params(&flat::<D::Elem>(&layout.params, &inputs));
    model.load_buffers(&flat::<D::Elem>(&layout.buffers, &inputs));
    let images =
        convert(&fill(case.image_tensor, case.batch * network.input.len(), case.image_bound, 0.0));

    let logits = model.evaluate(&images)?;
    let mut comparison = Comparison::new(limits);
    comparison.evaluation(case, &to_f64(&logits));

    let mut gradient = vec![0.0; layout.params.len()];
    let mut statistics = vec![D::Elem::ZERO; layout.buffers.len()];
    let outcome =
        model.train_step(&images, &case.labels, None, &mut statistics, &mut |range, values| {
            gradient[range].copy_from_slice(&to_f64(values));
        })?;
    comparison.training(case, outcome.loss, &to_f64(&model.training_logits()?));
    comparison.gradients(case, &layout.params, &gradient);
    comparison.statistics(case, &layout.buffers, &to_f64(&statistics));
    Ok(comparison.rows)
}

/// The flat vector of `tensors` from the values of each.
fn flat<T: Float>(tensors: &Tensors, inputs: &BTreeMap<&str, Vec<f32>>) -> Vec<T> {
    tensors.entries().iter().flat_map(|entry| convert::<T>(&inputs[entry.name.as_str()])).collect()
}

fn convert<T: Float>(values: &[f32]) -> Vec<T> {
    values.iter().map(|value| T::from_f64(f64::from(*value))).collect()
}

fn to_f64<T: Float>(values: &[T]) -> Vec<f64> {
    values.iter().map(|value| value.to_f64()).collect()
}

#[cfg(test)]
mod tests;
