//! The model as the rest of the worker sees it: f32 in and out, whatever the device.

use std::ops::Range;

use hw2_common::layout::ParamLayout;
use hw2_common::model::{Block, ConvSpec, ModelSpec, Network};
use sha2::{Digest, Sha256};

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

/// Batch and image size of the fixed job that tells numeric kinds apart.
const KIND_BATCH: usize = 4;
const KIND_IMAGE_SIZE: usize = 20;
const KIND_SEED: u64 = 1;

/// What computes alike: the digest, in hex, of the gradient of a fixed synthetic batch through every
/// kind of layer.
///
/// # Errors
/// The device is not there, or fails.
pub fn numeric_kind(choice: Choice, threads: usize) -> Result<String, DeviceError> {
    let network = kind_model().network(10).expect("a valid model");
    let layout = ParamLayout::new(&network);
    let mut engine = engine(choice, &network, KIND_BATCH, threads)?;
    engine.load_params(&layout.initial_params(KIND_SEED));
    let pixels = KIND_BATCH * network.input.len();
    let images: Vec<f32> = (0..pixels).map(|i| (i * 37 % 255) as f32 / 64.0 - 2.0).collect();
    let labels: Vec<u32> = (0..KIND_BATCH as u32).collect();
    let mut statistics = vec![0.0; layout.buffers.len()];
    let mut hash = Sha256::new();
    engine.train_step(&images, &labels, None, &mut statistics, &mut |_, gradient| {
        gradient.iter().for_each(|value| hash.update(value.to_le_bytes()));
    })?;
    statistics.iter().for_each(|value| hash.update(value.to_le_bytes()));
    Ok(hw2_common::hex(&hash.finalize()[..8]))
}

/// Wide enough that every code path of a device is taken, small enough to cost nothing.
fn kind_model() -> ModelSpec {
    let conv = |channels, stride| ConvSpec { channels, kernel_size: 3, stride };
    let blocks = vec![
        Block::ConvStack { name: "conv".into(), layers: vec![conv(24, 1), conv(64, 2)] },
        Block::MaxPool { name: "pool".into(), kernel_size: 3, stride: 2 },
        Block::InceptionV2 { name: "mix".into(), branches: [16, 24, 24, 16], bottleneck: 40 },
        Block::Dense { name: "dense".into(), units: 64, keep: 1.0, weight_decay: 1e-3 },
        Block::SoftmaxLinear { name: "softmax".into() },
    ];
    ModelSpec { image_size: KIND_IMAGE_SIZE, blocks }
}
