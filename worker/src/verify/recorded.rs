//! A device whose decisions are written down: where ReLUs pass and what pools choose.

use std::sync::{Arc, Mutex};

use super::report::Decisions;
use crate::device::{
    Buffer, Device, DeviceError, DropoutCoordinates, Epilogue, Float, Op, Operand, Span,
};

/// One number for each decision, in order.
pub(super) type Record = Arc<Mutex<Vec<u8>>>;

/// Writes down what `device` decides; changes nothing of it.
pub(super) struct Recorded<D> {
    device: D,
    record: Record,
    /// For the next download to report.
    failure: Option<DeviceError>,
}

/// How many of the decisions of two runs of one network differ.
pub(super) fn differing(ours: &[u8], exact: &[u8]) -> Decisions {
    assert_eq!(ours.len(), exact.len(), "one network decides as often");
    let flipped = ours.iter().zip(exact).filter(|(ours, exact)| ours != exact).count();
    Decisions { all: ours.len(), flipped }
}

impl<D: Device> Recorded<D> {
    pub(super) fn new(device: D, record: Record) -> Self {
        Self { device, record, failure: None }
    }

    /// Appends what `op` has decided.
    fn append(&mut self, op: Op) -> Result<(), DeviceError> {
        let (decided, is_relu) = match op {
            Op::BatchNormRelu { output, .. } => (output, true),
            Op::Conv2dForward { epilogue: Epilogue::BiasRelu(_), output, .. } => (output, true),
            Op::MaxPoolForward { places: Some(places), .. } => (places, false),
            _ => return Ok(()),
        };
        let operand = Operand::from(decided);
        let mut values = vec![D::Elem::ZERO; operand.hull().len];
        self.device.download(operand.hull(), &mut values)?;
        let decision = |value: &D::Elem| match is_relu {
            true => u8::from(*value > D::Elem::ZERO),
            // At most 15 * 15 places.
            false => value.to_f64() as u8,
        };
        let mut record = self.record.lock().expect("no operation panicked");
        record.extend(operand.rows_of(&values).flatten().map(decision));
        Ok(())
    }
}

impl<D: Device> Device for Recorded<D> {
    type Elem = D::Elem;

    fn describe(&self) -> String {
        self.device.describe()
    }

    fn alloc(&mut self, len: usize) -> Buffer {
        self.device.alloc(len)
    }

    fn upload(&mut self, target: Span, values: &[D::Elem]) {
        self.device.upload(target, values);
    }

    fn download(&mut self, source: Span, values: &mut [D::Elem]) -> Result<(), DeviceError> {
        match self.failure.take() {
            Some(failure) => Err(failure),
            None => self.device.download(source, values),
        }
    }

    fn set_dropout(&mut self, coordinates: DropoutCoordinates) {
        self.device.set_dropout(coordinates);
    }

    fn run(&mut self, op: Op) {
        self.device.run(op);
        if self.failure.is_none() {
            self.failure = self.append(op).err();
        }
    }
}
