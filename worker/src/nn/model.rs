//! The network on a device: a training step, an evaluation.

use std::collections::VecDeque;
use std::ops::Range;

use hw2_common::config::Precision;
use hw2_common::model::Network;

use super::builder::{LOSS, PENALTIES, TOP1};
use super::program::{Program, TrainingStep};
use crate::device::{
    AnyDevice, Buffer, DeviceError, DropoutCoordinates, Float, Pipeline, Request, Span,
};
use crate::photo::Photo;

/// Receives each bucket of a gradient, with its range of the flat vector, as backward finishes it.
pub(super) type OnBucket<'a, T> = &'a mut dyn FnMut(Range<usize>, &[T]);

/// Something that a training step has made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Made<'a, T> {
    /// The BN statistics of the batch, in the layout of `buffers`.
    Statistics(&'a [T]),
    /// A bucket of the gradient, which begins there in the flat vector.
    Bucket(usize, &'a [T]),
}

impl<'a, T> Made<'a, T> {
    /// Whatever it is.
    pub fn values(&self) -> &'a [T] {
        match self {
            Self::Statistics(values) | Self::Bucket(_, values) => values,
        }
    }
}

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
pub struct Model<D: Pipeline> {
    device: D,
    program: Program,
    /// A training step with dropout and one without.
    steps: [TrainingStep; 2],
    /// Of these, and the parts of its forward pass that were begun.
    step: usize,
    parts: usize,
    /// What the segments that were begun make, in order.
    making: VecDeque<Span>,
}

impl<D: Pipeline> Model<D> {
    /// Allocates what batches of up to `batch_size` images need, on a device without buffers, for
    /// activations of `precision`. Parameters and statistics are 0 until they are loaded.
    ///
    /// # Errors
    /// The device fails, or has no room for them.
    pub fn new(
        mut device: D,
        network: &Network,
        batch_size: usize,
        precision: Precision,
    ) -> Result<Self, DeviceError> {
        let program = Program::new(network, batch_size, precision);
        let buffers = device.alloc(program.requests());
        assert_eq!(buffers, Request::buffers(program.requests()), "the device had no buffers");
        let steps = [true, false].map(|dropout| program.train(dropout));
        device.make_room(&steps[0].ops().collect::<Vec<_>>());
        device.finish()?;
        Ok(Self { device, program, steps, step: 0, parts: 0, making: VecDeque::new() })
    }

    /// The device in words.
    pub fn describe(&self) -> String {
        self.device.describe()
    }

    /// What else than its operations decides the device's bits.
    pub fn kind(&self) -> String {
        self.device.kind()
    }

    /// Replaces the parameters, in the layout of `params`.
    pub fn load_params(&mut self, params: &[D::Elem]) {
        assert_eq!(params.len(), self.program.layout.params.len(), "all parameters");
        self.load_params_at(0, params);
    }

    /// Replaces the parameters from `start` on.
    pub fn load_params_at(&mut self, start: usize, params: &[D::Elem]) {
        self.load(self.program.vectors.params, start, params);
    }

    /// Replaces the running BN statistics, in the layout of `buffers`.
    pub fn load_buffers(&mut self, buffers: &[D::Elem]) {
        assert_eq!(buffers.len(), self.program.layout.buffers.len(), "all running statistics");
        self.load_buffers_at(0, buffers);
    }

    /// Replaces the running BN statistics from `start` on.
    pub fn load_buffers_at(&mut self, start: usize, buffers: &[D::Elem]) {
        self.load(self.program.vectors.running_statistics, start, buffers);
    }

    fn load(&mut self, vector: Buffer, start: usize, values: &[D::Elem]) {
        self.device.upload(Span { buffer: vector, offset: start, len: values.len() }, values);
    }

    /// Hands over the batch of the next training step, whatever the device does now: images
    /// (batch_size, h, w, 3) and their labels.
    pub fn stage(&mut self, images: &[D::Elem], labels: &[u32]) {
        self.device.stage(self.program.images.span(), images);
        self.stage_labels(labels);
    }

    /// The same with photos that the device finishes.
    pub fn stage_photos(&mut self, photos: &[Photo], labels: &[u32]) {
        self.device.stage_photos(self.program.images, photos);
        self.stage_labels(labels);
    }

    /// Whether photos should be handed over unfinished.
    pub fn finishes_photos(&self) -> bool {
        self.device.finishes_photos()
    }

    fn stage_labels(&mut self, labels: &[u32]) {
        let labels: Vec<_> =
            labels.iter().map(|label| D::Elem::from_f64((*label).into())).collect();
        self.device.stage(self.program.labels, &labels);
    }

    /// Begins forward and backward over the batch that was staged, without dropout if there are no
    /// coordinates. [`Self::made`] gives what is made until there is nothing more.
    pub fn begin(&mut self, dropout: Option<DropoutCoordinates>) {
        self.begin_forward(dropout);
        self.begin_backward();
    }

    /// Begins a training step over the batch that was staged. Nothing is computed yet. A step that
    /// was begun before and did not come to [`Self::begin_backward`] is given up, with its batch.
    pub fn begin_forward(&mut self, dropout: Option<DropoutCoordinates>) {
        self.device.take_staged();
        if let Some(coordinates) = dropout {
            self.device.set_dropout(coordinates);
        }
        self.step = usize::from(dropout.is_none());
        self.parts = 0;
    }

    /// The parameters that each part of the forward pass of a training step is the first to need,
    /// in order.
    pub fn forward_parts(&self) -> impl Iterator<Item = Range<usize>> {
        self.steps[self.step].forward.iter().map(|part| part.params.clone())
    }

    /// Does the next part of the forward pass, whose parameters must be there, and says which they
    /// are; none after the last.
    pub fn forward_part(&mut self) -> Option<Range<usize>> {
        let part = self.steps[self.step].forward.get(self.parts)?;
        self.device.run_all(&part.ops);
        self.parts += 1;
        Some(part.params.clone())
    }

    /// Does what is left of the forward pass, and begins backward.
    pub fn begin_backward(&mut self) {
        while self.forward_part().is_some() {}
        let segments = &self.steps[self.step].backward;
        let (_results, others) = segments.split_last().expect("results are made last");
        self.making.extend(others.iter().map(|segment| segment.made));
        self.device.begin(segments);
    }

    /// The next thing that the step has made: the statistics first, then each bucket of the
    /// gradient as soon as it is there.
    ///
    /// # Errors
    /// Those of the device.
    pub fn made(&mut self) -> Result<Option<Made<'_, D::Elem>>, DeviceError> {
        let Some(made) = self.making.pop_front() else { return Ok(None) };
        let values = self.device.next()?;
        Ok(Some(match made.buffer == self.program.vectors.grads {
            true => Made::Bucket(made.offset, values),
            false => Made::Statistics(values),
        }))
    }

    /// What the step says of itself, when it has made everything.
    ///
    /// # Errors
    /// Those of the device.
    pub fn outcome(&mut self) -> Result<StepOutcome, DeviceError> {
        let results = self.device.next()?;
        let penalty: f64 = results[PENALTIES..].iter().map(|penalty| penalty.to_f64()).sum();
        Ok(StepOutcome {
            loss: results[LOSS].to_f64() + penalty,
            top1: results[TOP1].to_f64() as u32,
        })
    }

    /// A whole training step: statistics go to `statistics`, each bucket of the gradient, with its
    /// range, to `on_bucket`.
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
        self.stage(images, labels);
        self.begin(dropout);
        while let Some(made) = self.made()? {
            match made {
                Made::Statistics(values) => statistics.copy_from_slice(values),
                Made::Bucket(start, values) => on_bucket(start..start + values.len(), values),
            }
        }
        self.outcome()
    }

    /// Logits (n, classes) of images (n, h, w, 3), n at most batch_size, with the running
    /// statistics. Those of an image do not depend on what else is in the batch; on a GPU their
    /// last bits may depend on n.
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
