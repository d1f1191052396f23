//! A device beside the plain loops in f64, both given the same numbers before every operation.
//!
//! From end to end the rounding of f32 can make a ReLU or an arg-max fall the other way, after
//! which two right gradients have little to do with each other. On equal inputs it cannot, so that
//! an operation that is wrong by more than rounding is found and named, whatever came before it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::compare::relative;
use super::measured::to_f64;
use super::report::{LockstepReport, OperationError};
use super::watched::Watch;
use crate::device::plain::Plain;
use crate::device::{
    BN_EPSILON, Device, DeviceError, DropoutCoordinates, Float, Op, Operand, Request,
};

/// What an operation in f32 may be off.
const LIMIT: f64 = 1e-5;

/// The largest error of each operation so far, by its name and sizes.
pub(super) type Errors = Arc<Mutex<BTreeMap<String, f64>>>;

/// Compares everything that a device does; changes nothing of it.
pub(super) struct Lockstep {
    exact: Plain<f64>,
    errors: Errors,
}

/// What was found; whether the device `repeats` its results is for the caller to say.
pub(super) fn report(errors: &Errors, repeats: bool) -> LockstepReport {
    let errors = errors.lock().expect("no operation panicked");
    let one =
        |(name, error): (&String, &f64)| OperationError { operation: name.clone(), error: *error };
    let mut operations: Vec<OperationError> = errors.iter().map(one).collect();
    operations.sort_by(|a, b| b.error.total_cmp(&a.error));
    LockstepReport { limit: LIMIT, operations, repeats }
}

impl<D: Device> Watch<D> for Lockstep {
    fn allocated(&mut self, requests: &[Request]) {
        self.exact.alloc(requests);
    }

    fn dropout_set(&mut self, coordinates: DropoutCoordinates) {
        self.exact.set_dropout(coordinates);
    }

    /// Runs `op` on both and keeps the largest error of its results.
    fn run(&mut self, device: &mut D, op: Op) -> Result<(), DeviceError> {
        for operand in op.reads() {
            let values = download(device, operand)?;
            self.exact.upload(operand.hull(), &values);
        }
        let undecided = self.undecided(op)?;
        device.run(op);
        self.exact.run(op);
        let mut largest = 0.0_f64;
        for operand in op.writes() {
            let decided = |values: Vec<f64>| -> Vec<f64> {
                let rows = operand.rows_of(&values);
                let numbered = rows.flat_map(|row| row.iter().enumerate());
                numbered.filter(|(c, _)| !undecided.contains(c)).map(|(_, value)| *value).collect()
            };
            let values = decided(download(device, operand)?);
            let exact = decided(download(&mut self.exact, operand)?);
            let error = relative(&values, &exact);
            // `max` would pass over a NaN.
            largest = largest.max(if error.is_nan() { f64::INFINITY } else { error });
        }
        let mut errors = self.errors.lock().expect("no operation panicked");
        let error = errors.entry(op.to_string()).or_default();
        *error = error.max(largest);
        Ok(())
    }
}

impl Lockstep {
    pub(super) fn new(errors: Errors) -> Self {
        Self { exact: Plain::new(), errors }
    }

    /// The channels in which a batch normalisation going backward meets a number so near to zero
    /// that in f32 its ReLU may rightly pass or not: there are two right gradients, so none is
    /// compared. One number in some hundred million is like that.
    fn undecided(&mut self, op: Op) -> Result<Vec<usize>, DeviceError> {
        let Op::BatchNormReluBackward { bn, input, .. } = op else { return Ok(Vec::new()) };
        let mut channels = [bn.mean, bn.var, bn.weight, bn.bias].into_iter();
        let mut next = || download(&mut self.exact, channels.next().expect("four").into());
        let (mean, var, weight, bias) = (next()?, next()?, next()?, next()?);
        let input = Operand::from(input);
        let values = download(&mut self.exact, input)?;
        let near_zero = |c: &usize| {
            let scale = weight[*c] / (var[*c] + BN_EPSILON).sqrt();
            input.rows_of(&values).any(|row| {
                let scaled = (row[*c] - mean[*c]) * scale;
                (scaled + bias[*c]).abs() < 4.0 * f64::from(f32::EPSILON) * scaled.abs()
            })
        };
        Ok((0..mean.len()).filter(near_zero).collect())
    }
}

/// The hull of `operand` in f64.
fn download<D: Device>(device: &mut D, operand: Operand) -> Result<Vec<f64>, DeviceError> {
    let hull = operand.hull();
    let mut values = vec![D::Elem::ZERO; hull.len];
    device.download(hull, &mut values)?;
    Ok(to_f64(&values))
}

#[cfg(test)]
mod tests {
    use hw2_common::model::Shape;

    use super::*;
    use crate::device::{BatchNorm, Span, Tensor};

    const ROWS: usize = 50;
    const MEAN: f32 = 0.1;
    const VAR: f32 = 1.3;
    const WEIGHT: f32 = 0.9;

    /// A number and a bias on whose sign, after the batch normalisation, f32 and f64 do not agree.
    fn undecided() -> (f32, f32) {
        let inverse_std = 1.0 / (f64::from(VAR) + BN_EPSILON).sqrt();
        let scale = f64::from(WEIGHT) * inverse_std;
        let candidate = |index: u16| {
            let bias = 0.05 + f32::from(index) * 1e-4;
            ((f64::from(MEAN) - f64::from(bias) / scale) as f32, bias)
        };
        let disagree = |&(number, bias): &(f32, f32)| {
            let single = (number - MEAN) * (WEIGHT * inverse_std as f32) + bias;
            let double = (f64::from(number) - f64::from(MEAN)) * scale + f64::from(bias);
            (single > 0.0) != (double > 0.0)
        };
        (0..1000).map(candidate).find(disagree).unwrap()
    }

    #[test]
    fn a_relu_that_may_fall_either_way_within_an_operation_is_no_error() {
        let errors = Errors::default();
        let mut device = Plain::<f32>::new();
        let mut lockstep = Lockstep::new(Arc::clone(&errors));
        let mut buffer = |values: &[f32]| {
            let request = [Request::lasting(values.len())];
            <Lockstep as Watch<Plain<f32>>>::allocated(&mut lockstep, &request);
            let span = Span { buffer: device.alloc(&request)[0], offset: 0, len: values.len() };
            device.upload(span, values);
            span
        };
        let (number, bias) = undecided();
        let mut numbers: Vec<f32> = (0..2 * ROWS).map(|i| (i * 37 % 101) as f32 / 50.0).collect();
        let grads: Vec<f32> = numbers.iter().map(|number| 1.5 - number).collect();
        // Of channel 1.
        numbers[2 * 20 + 1] = number;
        let tensor = |span: Span| Tensor::new(span.buffer, ROWS, Shape { h: 1, w: 1, c: 2 });
        let (input, grad) = (tensor(buffer(&numbers)), tensor(buffer(&grads)));
        let bn = BatchNorm {
            mean: buffer(&[MEAN; 2]),
            var: buffer(&[VAR; 2]),
            weight: buffer(&[WEIGHT; 2]),
            bias: buffer(&[bias; 2]),
        };
        let (grad_weight, grad_bias) = (buffer(&[0.0; 2]), buffer(&[0.0; 2]));
        let (grad_output, grad_input) = (grad, grad);
        let op = Op::BatchNormReluBackward {
            bn,
            input,
            grad_output,
            grad_input,
            grad_weight,
            grad_bias,
        };
        lockstep.run(&mut device, op).unwrap();
        let report = report(&errors, true);
        assert!(report.passed() && report.operations.len() == 1, "{report:#?}");
        assert_eq!(lockstep.undecided(op).unwrap(), [1]);
    }
}
