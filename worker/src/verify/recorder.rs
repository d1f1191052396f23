//! The decisions of a device, written down: where ReLUs pass and what pools choose.

use std::sync::{Arc, Mutex};

use super::report::Decisions;
use super::watched::Watch;
use crate::device::{Device, DeviceError, Epilogue, Float, Op, Operand, Pointwise, Tensor};

/// One number for each decision, in order.
pub(super) type Record = Arc<Mutex<Vec<u8>>>;

/// Writes down what a device decides; changes nothing of it.
pub(super) struct Recorder(pub(super) Record);

/// How many of the decisions of two runs of one network differ.
pub(super) fn differing(ours: &[u8], exact: &[u8]) -> Decisions {
    assert_eq!(ours.len(), exact.len(), "one network decides as often");
    let flipped = ours.iter().zip(exact).filter(|(ours, exact)| ours != exact).count();
    Decisions { all: ours.len(), flipped }
}

impl<D: Device> Watch<D> for Recorder {
    fn run(&mut self, device: &mut D, op: Op) -> Result<(), DeviceError> {
        device.run(op);
        for (decided, is_relu) in decided(op) {
            let operand = Operand::from(decided);
            let mut values = vec![D::Elem::ZERO; operand.hull().len];
            device.download(operand.hull(), &mut values)?;
            let decision = |value: &D::Elem| match is_relu {
                true => u8::from(*value > D::Elem::ZERO),
                // At most 15 * 15 places.
                false => value.to_f64() as u8,
            };
            let mut record = self.0.lock().expect("no operation panicked");
            record.extend(operand.rows_of(&values).flatten().map(decision));
        }
        Ok(())
    }
}

/// The results of `op` that show decisions, and whether they are those of a ReLU.
fn decided(op: Op) -> Vec<(Tensor, bool)> {
    match op {
        Op::BatchNormRelu { output, .. }
        | Op::Conv2dForward { epilogue: Epilogue::BiasRelu(_), output, .. } => vec![(output, true)],
        Op::PointwiseForward { convs, .. } => {
            let is_relu = |conv: &Pointwise| matches!(conv.epilogue, Epilogue::BiasRelu(_));
            convs.into_iter().filter(is_relu).map(|conv| (conv.output, true)).collect()
        }
        Op::MaxPoolForward { places: Some(places), .. } => vec![(places, false)],
        _ => Vec::new(),
    }
}
