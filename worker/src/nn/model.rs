//! The network on a device: a training step, an evaluation.

use std::ops::Range;

use hw2_common::layout::ParamLayout;
use hw2_common::model::{self, LayerKind, Network};

use super::builder::{Builder, LOSS, PENALTIES, TOP1, Vectors};
use super::conv_stack::ConvStack;
use super::dense::Dense;
use super::inception::Inception;
use super::max_pool::MaxPool;
use super::softmax_linear::SoftmaxLinear;
use super::spatial_dropout::SpatialDropout;
use super::{Layer, Pass, Signal};
use crate::device::{
    Buffer, Device, DeviceError, DropoutCoordinates, Float, Op, Span, Tensor, Window,
};

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

/// A network with its memory on a device. Its numbers are the device's; see [`super::Engine`] for
/// the form the rest of the worker uses.
pub struct Model<D: Device> {
    device: D,
    layout: ParamLayout,
    vectors: Vectors,
    layers: Vec<Box<dyn Layer<D>>>,
    /// For each layer the index of the first parameter that is its own or of a later layer.
    first_params: Vec<usize>,
    images: Tensor,
    labels: Span,
    logits: Signal,
    penalties: usize,
    /// Host memory for one bucket.
    bucket: Vec<D::Elem>,
}

impl<D: Device> Model<D> {
    /// Allocates everything that batches of up to `batch_size` images need. Parameters and
    /// statistics are 0 until they are loaded.
    pub fn new(mut device: D, network: &Network, batch_size: usize) -> Self {
        assert!(batch_size > 0, "a batch holds an image");
        let layout = ParamLayout::new(network);
        let dense =
            network.layers.iter().filter(|layer| matches!(layer.kind, LayerKind::Dense { .. }));
        let penalties = dense.count();
        let vectors = Vectors {
            params: device.alloc(layout.params.len()),
            grads: device.alloc(layout.params.len()),
            batch_statistics: device.alloc(layout.buffers.len()),
            running_statistics: device.alloc(layout.buffers.len()),
            results: device.alloc(PENALTIES + penalties),
        };
        let labels = Span { buffer: device.alloc(batch_size), offset: 0, len: batch_size };
        let mut builder = Builder {
            device: &mut device,
            layout: &layout,
            vectors,
            batch_size,
            dropouts: 0,
            penalties: 0,
        };
        let images = builder.tensor(network.input);
        let mut signal = Signal { value: images, grad: None };
        let mut layers = Vec::new();
        for layer in &network.layers {
            let (built, output) = build(&mut builder, layer, signal);
            layers.push(built);
            signal = output;
        }
        let first_params = (0..layers.len()).map(|layer| first_param(&layout, layer)).collect();
        let bucket = layout.buckets().iter().map(Range::len).max().unwrap_or(0);
        Self {
            device,
            vectors,
            layers,
            first_params,
            images,
            labels,
            logits: signal,
            penalties,
            bucket: vec![D::Elem::ZERO; bucket],
            layout,
        }
    }

    /// The device in words.
    pub fn describe(&self) -> String {
        self.device.describe()
    }

    /// Replaces the parameters, in the layout of `params`.
    pub fn load_params(&mut self, params: &[D::Elem]) {
        self.device.upload(whole(self.vectors.params, self.layout.params.len()), params);
    }

    /// Replaces the running BN statistics, in the layout of `buffers`.
    pub fn load_buffers(&mut self, buffers: &[D::Elem]) {
        let span = whole(self.vectors.running_statistics, self.layout.buffers.len());
        self.device.upload(span, buffers);
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
        let pass = Pass::Train { dropout: dropout.is_some() };
        if let Some(coordinates) = dropout {
            self.device.set_dropout(coordinates);
        }
        let labels: Vec<_> =
            labels.iter().map(|label| D::Elem::from_f64((*label).into())).collect();
        self.device.upload(self.images.span(), images);
        self.device.upload(self.labels, &labels);
        self.layers.iter().for_each(|layer| layer.forward(&mut self.device, pass));
        self.device.run(Op::SoftmaxCrossEntropy {
            logits: self.logits.value,
            labels: self.labels,
            grad_logits: self.logits.own_grad(),
            loss: self.result(LOSS),
            top1: self.result(TOP1),
        });
        let span = whole(self.vectors.batch_statistics, self.layout.buffers.len());
        self.device.download(span, statistics)?;
        self.backward(pass, on_bucket)?;
        self.outcome()
    }

    fn backward(
        &mut self,
        pass: Pass,
        on_bucket: OnBucket<'_, D::Elem>,
    ) -> Result<(), DeviceError> {
        let mut buckets = self.layout.buckets().into_iter().peekable();
        for (layer, first_param) in self.layers.iter().zip(&self.first_params).rev() {
            layer.backward(&mut self.device, pass);
            while let Some(range) = buckets.next_if(|range| range.start >= *first_param) {
                let values = &mut self.bucket[..range.len()];
                let span =
                    Span { buffer: self.vectors.grads, offset: range.start, len: range.len() };
                self.device.download(span, values)?;
                on_bucket(range, values);
            }
        }
        Ok(())
    }

    fn outcome(&mut self) -> Result<StepOutcome, DeviceError> {
        let mut results = vec![D::Elem::ZERO; PENALTIES + self.penalties];
        self.device.download(whole(self.vectors.results, results.len()), &mut results)?;
        let penalty: f64 = results[PENALTIES..].iter().map(|penalty| penalty.to_f64()).sum();
        Ok(StepOutcome {
            loss: results[LOSS].to_f64() + penalty,
            top1: results[TOP1].to_f64() as u32,
        })
    }

    fn result(&self, offset: usize) -> Span {
        Span { buffer: self.vectors.results, offset, len: 1 }
    }

    /// Logits (n, classes) of images (n, h, w, 3), n at most batch_size, with the running statistics.
    /// Those of an image do not depend on what else is in the batch.
    ///
    /// # Errors
    /// Those of the device.
    pub fn evaluate(&mut self, images: &[D::Elem]) -> Result<Vec<D::Elem>, DeviceError> {
        let n = images.len() / self.images.shape.len();
        assert!(n > 0, "evaluation of no images");
        let pass = Pass::Evaluate { n };
        self.device.upload(pass.of(self.images).span(), images);
        self.layers.iter().for_each(|layer| layer.forward(&mut self.device, pass));
        self.download_logits(n)
    }

    /// Logits (batch_size, classes) of the last training step.
    ///
    /// # Errors
    /// Those of the device.
    pub fn training_logits(&mut self) -> Result<Vec<D::Elem>, DeviceError> {
        self.download_logits(self.logits.value.n)
    }

    fn download_logits(&mut self, n: usize) -> Result<Vec<D::Elem>, DeviceError> {
        let logits = self.logits.value.first(n).span();
        let mut values = vec![D::Elem::ZERO; logits.len];
        self.device.download(logits, &mut values)?;
        Ok(values)
    }
}

/// The layer for `layer`, from `input`, and its output.
fn build<D: Device>(
    builder: &mut Builder<D>,
    layer: &model::Layer,
    input: Signal,
) -> (Box<dyn Layer<D>>, Signal) {
    fn boxed<D: Device>(
        (layer, output): (impl Layer<D> + 'static, Signal),
    ) -> (Box<dyn Layer<D>>, Signal) {
        (Box::new(layer), output)
    }
    let (name, shape) = (&layer.name, layer.output);
    match &layer.kind {
        LayerKind::ConvStack(convs) => boxed(ConvStack::new(builder, convs, input)),
        LayerKind::MaxPool { kernel_size, stride } => {
            let window = Window { kernel_size: *kernel_size, stride: *stride };
            boxed(MaxPool::new(builder, window, shape, input))
        }
        LayerKind::Inception(branches) => boxed(Inception::new(builder, layer, branches, input)),
        LayerKind::SpatialDropout { keep } => {
            boxed((SpatialDropout::new(builder, *keep, input), input))
        }
        LayerKind::Dense { keep, weight_decay } => {
            boxed(Dense::new(builder, name, (*keep, *weight_decay), shape, input))
        }
        LayerKind::SoftmaxLinear => boxed(SoftmaxLinear::new(builder, name, shape, input)),
    }
}

/// Index of the first parameter of `layer` or a later one.
fn first_param(layout: &ParamLayout, layer: usize) -> usize {
    let entries = layout.params.entries();
    let entry = entries.iter().find(|entry| entry.layer >= layer);
    entry.map_or(layout.params.len(), |entry| entry.range.start)
}

fn whole(buffer: Buffer, len: usize) -> Span {
    Span { buffer, offset: 0, len }
}
