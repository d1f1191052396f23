//! The model as the rest of the worker sees it: f32 in and out, whatever the device.

use std::ops::Range;

use hw2_common::model::Network;

use super::{Model, StepOutcome};
use crate::device::cpu::Cpu;
use crate::device::plain::Plain;
use crate::device::{Choice, Device, DeviceError, DropoutCoordinates};

/// A network on a device, for training and evaluation.
pub trait Engine: Send {
    /// Replaces the parameters, in the layout of `params`.
    fn load_params(&mut self, params: &[f32]);

    /// Replaces the running BN statistics, in the layout of `buffers`.
    fn load_buffers(&mut self, buffers: &[f32]);

    /// Forward and backward over images (batch_size, h, w, 3) and their labels; see
    /// [`Model::train_step`].
    ///
    /// # Errors
    /// Those of the device.
    fn train_step(
        &mut self,
        images: &[f32],
        labels: &[u32],
        dropout: Option<DropoutCoordinates>,
        statistics: &mut [f32],
        on_bucket: &mut dyn FnMut(Range<usize>, &[f32]),
    ) -> Result<StepOutcome, DeviceError>;

    /// Logits (n, classes) of images (n, h, w, 3), n at most batch_size, with the running statistics.
    ///
    /// # Errors
    /// Those of the device.
    fn evaluate(&mut self, images: &[f32]) -> Result<Vec<f32>, DeviceError>;

    /// The device in words.
    fn describe(&self) -> String;
}

impl<D: Device<Elem = f32>> Engine for Model<D> {
    fn load_params(&mut self, params: &[f32]) {
        self.load_params(params);
    }

    fn load_buffers(&mut self, buffers: &[f32]) {
        self.load_buffers(buffers);
    }

    fn train_step(
        &mut self,
        images: &[f32],
        labels: &[u32],
        dropout: Option<DropoutCoordinates>,
        statistics: &mut [f32],
        on_bucket: &mut dyn FnMut(Range<usize>, &[f32]),
    ) -> Result<StepOutcome, DeviceError> {
        self.train_step(images, labels, dropout, statistics, on_bucket)
    }

    fn evaluate(&mut self, images: &[f32]) -> Result<Vec<f32>, DeviceError> {
        self.evaluate(images)
    }

    fn describe(&self) -> String {
        self.describe()
    }
}

/// A network on the device that `choice` names; `threads` are those of a CPU, 0 for one per core.
///
/// # Errors
/// The device is not there.
pub fn engine(
    choice: Choice,
    network: &Network,
    batch_size: usize,
    threads: usize,
) -> Result<Box<dyn Engine>, DeviceError> {
    Ok(match choice {
        Choice::Auto | Choice::Cpu => Box::new(Model::new(Cpu::new(threads)?, network, batch_size)),
        Choice::Plain => Box::new(Model::new(Plain::<f32>::new(), network, batch_size)),
    })
}
