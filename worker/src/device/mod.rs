//! Where numbers live and what can be done with them: the trait that every device implements.
//!
//! A device knows no layers. It owns flat buffers of numbers, named by handles, and a set of
//! primitives, each an [`Op`] that reads some and overwrites others. All buffers are allocated
//! before the first step, so that addresses never change; an operation returns nothing, so that a
//! device may run behind its caller: an error surfaces at the next download. [`Pipeline`] is what a
//! training step asks of one.

mod choice;
pub mod cpu;
pub mod cuda;
mod float;
mod memory;
mod op;
mod operand;
mod pipeline;
pub mod plain;
mod tensor;

#[cfg(test)]
pub(crate) mod tests;

pub use choice::{AnyDevice, Choice, Kind};
pub use float::Float;
pub use op::Op;
pub use operand::Operand;
pub use pipeline::{Pipeline, Segment, Serial};
pub use tensor::{
    BatchNorm, Buffer, Epilogue, Format, Gemm, Mask, Pointwise, PointwiseGrad, Request, Span,
    Tensor, Update, Window,
};

use hw2_common::ids::{GlobalStep, ReplicaId};

/// Added to a variance before its root is taken.
pub const BN_EPSILON: f64 = 1e-5;

/// What makes the dropout masks of one micro-batch: nothing else does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropoutCoordinates {
    /// The run's seed.
    pub seed: u64,
    /// The step being computed.
    pub step: GlobalStep,
    /// The slice of the global batch.
    pub replica: ReplicaId,
}

/// A device stopped working; nothing that it holds can be trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{device}: {problem}")]
pub struct DeviceError {
    /// Which device.
    pub device: String,
    /// What it reported.
    pub problem: String,
}

/// Memory and primitives. Shapes are (n, h, w, c) throughout; every device is tested against the
/// plain loops in [`plain`].
pub trait Device: Send {
    /// What the buffers hold.
    type Elem: Float;

    /// The device in words, for a person: what it is and how much of it is used.
    fn describe(&self) -> String;

    /// What else than its operations decides its bits: versions and sizes, where a few numbers
    /// computed alike do not show that all are.
    fn kind(&self) -> String {
        String::new()
    }

    /// New buffers, which live as long as the device. They are numbered from 0 on.
    fn alloc(&mut self, requests: &[Request]) -> Vec<Buffer>;

    /// Makes room for what `ops` need besides their buffers, so that it fails here and now if there
    /// is none.
    fn make_room(&mut self, _ops: &[Op]) {}

    /// Overwrites `target` with `values`, which has its length.
    fn upload(&mut self, target: Span, values: &[Self::Elem]);

    /// Waits for everything asked so far and copies `source` to `values`, which has its length.
    ///
    /// # Errors
    /// Whatever went wrong on the device since the last download.
    fn download(&mut self, source: Span, values: &mut [Self::Elem]) -> Result<(), DeviceError>;

    /// Waits for everything asked so far.
    ///
    /// # Errors
    /// Whatever went wrong on the device since the last download.
    fn finish(&mut self) -> Result<(), DeviceError> {
        Ok(())
    }

    /// Chooses the masks of all following [`Op::Dropout`].
    fn set_dropout(&mut self, coordinates: DropoutCoordinates);

    /// Does `op`, now or at any time before the next download.
    fn run(&mut self, op: Op);

    /// Does `ops` in order. The same ones come at every step, so that a device may keep what it has
    /// made of them.
    fn run_all(&mut self, ops: &[Op]) {
        ops.iter().for_each(|op| self.run(*op));
    }
}

impl<D: Device + ?Sized> Device for Box<D> {
    type Elem = D::Elem;

    fn describe(&self) -> String {
        (**self).describe()
    }

    fn kind(&self) -> String {
        (**self).kind()
    }

    fn alloc(&mut self, requests: &[Request]) -> Vec<Buffer> {
        (**self).alloc(requests)
    }

    fn make_room(&mut self, ops: &[Op]) {
        (**self).make_room(ops);
    }

    fn upload(&mut self, target: Span, values: &[D::Elem]) {
        (**self).upload(target, values);
    }

    fn download(&mut self, source: Span, values: &mut [D::Elem]) -> Result<(), DeviceError> {
        (**self).download(source, values)
    }

    fn finish(&mut self) -> Result<(), DeviceError> {
        (**self).finish()
    }

    fn set_dropout(&mut self, coordinates: DropoutCoordinates) {
        (**self).set_dropout(coordinates);
    }

    fn run(&mut self, op: Op) {
        (**self).run(op);
    }

    fn run_all(&mut self, ops: &[Op]) {
        (**self).run_all(ops);
    }
}
