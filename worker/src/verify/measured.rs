//! One case from end to end.

use std::collections::BTreeMap;
use std::sync::Arc;

use hw2_common::config::Precision;
use hw2_common::layout::{ParamLayout, Tensors};
use hw2_common::model::{Block, ModelSpec, Network};

use super::compare::{Comparison, Limits};
use super::recorder::{Record, Recorder};
use super::reference::Case;
use super::report::{CaseReport, Decisions, LockstepReport, Outcome};
use super::watched::Watched;
use super::{VerifyError, fill};
use crate::device::{Device, DeviceError, Float, Pipeline, Serial};
use crate::nn::Model;

/// What came of a case.
pub(super) struct Measured {
    /// The device in words.
    pub(super) device: String,
    pub(super) comparison: Comparison,
}

impl Measured {
    pub(super) fn is_within(&self) -> bool {
        let Comparison { values, gradients, .. } = &self.comparison;
        values.iter().chain(gradients).all(|row| row.outcome == Outcome::Within)
    }

    pub(super) fn report(
        self,
        case: &Case,
        lockstep: Option<LockstepReport>,
        decisions: Option<Decisions>,
    ) -> CaseReport {
        let Comparison { values, gradients, .. } = self.comparison;
        CaseReport {
            name: case.name.clone(),
            batch: case.batch,
            image_size: case.image_size,
            classes: case.classes,
            rows: values.into_iter().chain(gradients).collect(),
            lockstep,
            decisions,
        }
    }
}

/// Evaluates and trains one step on `device`, and compares everything that `case` gives.
pub(super) fn measure<D: Pipeline>(
    device: D,
    case: &Case,
    limits: Limits,
) -> Result<Measured, VerifyError> {
    let mut run = Run::new(device, case, limits)?;
    run.evaluate()?;
    run.train()?;
    Ok(run.measured())
}

/// As [`measure`]; also returns what was decided in the training step.
pub(super) fn measure_and_record<D: Device>(
    device: D,
    case: &Case,
    limits: Limits,
) -> Result<(Measured, Vec<u8>), VerifyError> {
    let record = Record::default();
    let watched = Serial::new(Watched::new(device, Recorder(Arc::clone(&record))));
    let mut run = Run::new(watched, case, limits)?;
    let take = || std::mem::take(&mut *record.lock().expect("no operation panicked"));
    run.evaluate()?;
    drop(take());
    run.train()?;
    Ok((run.measured(), take()))
}

/// A case on its way through a device.
struct Run<'a, D: Pipeline> {
    case: &'a Case,
    layout: ParamLayout,
    model: Model<D>,
    images: Vec<D::Elem>,
    comparison: Comparison,
}

impl<'a, D: Pipeline> Run<'a, D> {
    fn new(device: D, case: &'a Case, limits: Limits) -> Result<Self, VerifyError> {
        let network = network(case)?;
        let layout = ParamLayout::new(&network);
        let mut model = Model::new(device, &network, case.batch, Precision::Fp32)?;
        let inputs: BTreeMap<&str, Vec<f32>> =
            case.order.iter().map(|tensor| (tensor.name.as_str(), tensor.values())).collect();
        model.load_params(&flat::<D::Elem>(&layout.params, &inputs));
        model.load_buffers(&flat::<D::Elem>(&layout.buffers, &inputs));
        let pixels = case.batch * network.input.len();
        let images = convert(&fill(case.image_tensor, pixels, case.image_bound, 0.0));
        Ok(Self { case, layout, model, images, comparison: Comparison::new(limits) })
    }

    fn evaluate(&mut self) -> Result<(), DeviceError> {
        let logits = self.model.evaluate(&self.images)?;
        self.comparison.evaluation(self.case, &to_f64(&logits));
        Ok(())
    }

    fn train(&mut self) -> Result<(), DeviceError> {
        let Self { case, layout, model, images, comparison } = self;
        let mut gradient = vec![0.0; layout.params.len()];
        let mut statistics = vec![D::Elem::ZERO; layout.buffers.len()];
        let outcome = model.train_step(
            images,
            &case.labels,
            None,
            &mut statistics,
            &mut |range, values| {
                gradient[range].copy_from_slice(&to_f64(values));
            },
        )?;
        comparison.training(case, outcome.loss, &to_f64(&model.training_logits()?));
        comparison.gradients(case, &layout.params, &gradient);
        comparison.statistics(case, &layout.buffers, &to_f64(&statistics));
        Ok(())
    }

    fn measured(self) -> Measured {
        Measured { device: self.model.describe(), comparison: self.comparison }
    }
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

/// The flat vector of `tensors` from the values of each.
fn flat<T: Float>(tensors: &Tensors, inputs: &BTreeMap<&str, Vec<f32>>) -> Vec<T> {
    tensors.entries().iter().flat_map(|entry| convert::<T>(&inputs[entry.name.as_str()])).collect()
}

fn convert<T: Float>(values: &[f32]) -> Vec<T> {
    values.iter().map(|value| T::from_f64(f64::from(*value))).collect()
}

pub(super) fn to_f64<T: Float>(values: &[T]) -> Vec<f64> {
    values.iter().map(|value| value.to_f64()).collect()
}
