//! The network on a device: a training step, an evaluation.

use std::ops::Range;

use hw2_common::model::Network;

use super::builder::{LOSS, PENALTIES, TOP1};
use super::program::{Program, whole};
use crate::device::{AnyDevice, Buffer, Device, DeviceError, DropoutCoordinates, Float};

/// Receives each bucket of a gradient, with its range of the flat vector, as backward finishes it.
pub(super) type OnBucket<'a, T> = &'a mut dyn FnMut(Range<usize>, &[T]);

/// What a training step says of itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepOutcome {
    /// Mean cross-entropy plus the penalties of weight decay.
    pub loss: f64,
    /// Images whose largest logit is that of their label.
    pub top1: u32,
}

/// A network on whatever device a person chose.
pub type Engine = Model<AnyDevice>;

/// A network with its memory on a device. Its numbers are the device's.
pub struct Model<D: Device> {
    device: D,
    program: Program,
    /// Host memory for one bucket.
    bucket: Vec<D::Elem>,
}

impl<D: Device> Model<D> {
    /// Allocates everything that batches of up to `batch_size` images need, on a device without
    /// buffers. Parameters and statistics are 0 until they are loaded.
    pub fn new(mut device: D, network: &Network, batch_size: usize) -> Self {
        let program = Program::new(network, batch_size);
        for (number, len) in program.buffers().iter().enumerate() {
            let buffer = device.alloc(*len);
            assert_eq!(buffer, Buffer::numbered(number), "the device had no buffers");
        }
        let bucket = program.layout.buckets().iter().map(Range::len).max().unwrap_or(0);
        Self { device, program, bucket: vec![D::Elem::ZERO; bucket] }
    }

    /// The device in words.
    pub fn describe(&self) -> String {
        self.device.describe()
    }

    /// Replaces the parameters, in the layout of `params`.
    pub fn load_params(&mut self, params: &[D::Elem]) {
        let Program { layout, vectors, .. } = &self.program;
        self.device.upload(whole(vectors.params, layout.params.len()), params);
    }

    /// Replaces the running BN statistics, in the layout of `buffers`.
    pub fn load_buffers(&mut self, buffers: &[D::Elem]) {
        let Program { layout, vectors, .. } = &self.program;
        self.device.upload(whole(vectors.running_statistics, layout.buffers.len()), buffers);
    }

    /// Forward and backward over images (batch_size, h, w, 3) and their labels, without dropout if
    /// there are no coordinates. BN statistics of the batch go to `statistics`, in the layout of
    /// `buffers`; each bucket of the gradient, with its range, to `on_bucket` as soon as it is made.
    ///
    /// # Errors
    /// Those of the device.
    pub fn train_step(
        &mut self,
        images: &[D::Elem],
        labels: &[u32],
        dropout: Option<DropoutCoordinates>,
        statistics: &mut [D::Elem],
        on_bucket: OnBucket<'_, D::Elem>,
    ) -> Result<StepOutcome, DeviceError> {
        if let Some(coordinates) = dropout {
            self.device.set_dropout(coordinates);
        }
        let labels: Vec<_> =
            labels.iter().map(|label| D::Elem::from_f64((*label).into())).collect();
        self.device.upload(self.program.images.span(), images);
        self.device.upload(self.program.labels, &labels);
        for segment in self.program.train(dropout.is_some()) {
            self.device.run_all(&segment.ops);
            let made = segment.made;
            if made.buffer == self.program.vectors.grads {
                let values = &mut self.bucket[..made.len];
                self.device.download(made, values)?;
                on_bucket(made.offset..made.offset + made.len, values);
            } else {
                self.device.download(made, statistics)?;
            }
        }
        self.outcome()
    }

    fn outcome(&mut self) -> Result<StepOutcome, DeviceError> {
        let span = self.program.results();
        let mut results = vec![D::Elem::ZERO; span.len];
        self.device.download(span, &mut results)?;
        let penalty: f64 = results[PENALTIES..].iter().map(|penalty| penalty.to_f64()).sum();
        Ok(StepOutcome {
            loss: results[LOSS].to_f64() + penalty,
            top1: results[TOP1].to_f64() as u32,
        })
    }

    /// Logits (n, classes) of images (n, h, w, 3), n at most batch_size, with the running statistics.
    /// Those of an image do not depend on what else is in the batch.
    ///
    /// # Errors
    /// Those of the device.
    pub fn evaluate(&mut self, images: &[D::Elem]) -> Result<Vec<D::Elem>, DeviceError> {
        let n = images.len() / self.program.images.shape.len();
        assert!(n > 0, "evaluation of no images");
        self.device.upload(self.program.images.first(n).span(), images);
        self.device.run_all(&self.program.evaluate(n));
        self.download_logits(n)
    }

    /// Logits (batch_size, classes) of the last training step.
    ///
    /// # Errors
    /// Those of the device.
    pub fn training_logits(&mut self) -> Result<Vec<D::Elem>, DeviceError> {
        self.download_logits(self.program.images.n)
    }

    fn download_logits(&mut self, n: usize) -> Result<Vec<D::Elem>, DeviceError> {
        let logits = self.program.logits(n);
        let mut values = vec![D::Elem::ZERO; logits.len];
        self.device.download(logits, &mut values)?;
        Ok(values)
    }
}
