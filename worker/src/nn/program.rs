//! What a network asks of a device: memory, the operations of a training step, those of an evaluation.

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
use crate::device::{Buffer, Op, Span, Tensor, Window};

/// A network for batches of a certain size, tied to numbered buffers.
pub struct Program {
    pub(super) layout: ParamLayout,
    pub(super) vectors: Vectors,
    pub(super) images: Tensor,
    pub(super) labels: Span,
    logits: Signal,
    penalties: usize,
    buffers: Vec<usize>,
    layers: Vec<Box<dyn Layer>>,
    /// For each layer the index of the first parameter that is its own or of a later layer.
    first_params: Vec<usize>,
}

/// Some of the operations of a training step, after which something is final.
#[derive(Clone, Debug, PartialEq)]
pub struct Segment {
    /// In order.
    pub ops: Vec<Op>,
    /// What nothing writes to any more: the statistics of the batch, or a bucket of the gradient.
    pub made: Span,
}

impl Program {
    /// For batches of up to `batch_size` images.
    pub fn new(network: &Network, batch_size: usize) -> Self {
        assert!(batch_size > 0, "a batch holds an image");
        let layout = ParamLayout::new(network);
        let dense =
            network.layers.iter().filter(|layer| matches!(layer.kind, LayerKind::Dense { .. }));
        let penalties = dense.count();
        let mut builder = Builder::new(&layout, batch_size, penalties);
        let vectors = builder.vectors;
        let labels = builder.per_image();
        let images = builder.tensor(network.input);
        let mut signal = Signal { value: images, grad: None };
        let mut layers = Vec::new();
        for layer in &network.layers {
            let (built, output) = build(&mut builder, layer, signal);
            layers.push(built);
            signal = output;
        }
        let buffers = builder.finish();
        let first_params = (0..layers.len()).map(|layer| first_param(&layout, layer)).collect();
        Self {
            vectors,
            images,
            labels,
            logits: signal,
            penalties,
            buffers,
            layers,
            first_params,
            layout,
        }
    }

    /// The length of each buffer, in the order of their numbers.
    pub fn buffers(&self) -> &[usize] {
        &self.buffers
    }

    /// Forward and backward over a whole batch. The first segment makes the statistics, each other one
    /// a bucket, in the order of backward.
    pub fn train(&self, dropout: bool) -> Vec<Segment> {
        let pass = Pass::Train { dropout };
        let mut ops = Vec::new();
        self.layers.iter().for_each(|layer| layer.forward(&mut ops, pass));
        ops.push(Op::SoftmaxCrossEntropy {
            logits: self.logits.value,
            labels: self.labels,
            grad_logits: self.logits.own_grad(),
            loss: self.result(LOSS),
            top1: self.result(TOP1),
        });
        let statistics = whole(self.vectors.batch_statistics, self.layout.buffers.len());
        let mut segments = vec![Segment { ops, made: statistics }];
        let mut ops = Vec::new();
        let mut buckets = self.layout.buckets().into_iter().peekable();
        for (layer, first_param) in self.layers.iter().zip(&self.first_params).rev() {
            layer.backward(&mut ops, pass);
            while let Some(range) = buckets.next_if(|range| range.start >= *first_param) {
                let made =
                    Span { buffer: self.vectors.grads, offset: range.start, len: range.len() };
                segments.push(Segment { ops: std::mem::take(&mut ops), made });
            }
        }
        assert!(ops.is_empty(), "every layer is followed by the bucket of the first one");
        segments
    }

    /// Forward over the first `n` images of a batch, with the running statistics. What comes out for
    /// an image does not depend on the others.
    pub fn evaluate(&self, n: usize) -> Vec<Op> {
        let mut ops = Vec::new();
        self.layers.iter().for_each(|layer| layer.forward(&mut ops, Pass::Evaluate { n }));
        ops
    }

    /// The logits (n, classes) of the first `n` images.
    pub(super) fn logits(&self, n: usize) -> Span {
        self.logits.value.first(n).span()
    }

    /// Loss, hits and penalties.
    pub(super) fn results(&self) -> Span {
        whole(self.vectors.results, PENALTIES + self.penalties)
    }

    fn result(&self, offset: usize) -> Span {
        Span { buffer: self.vectors.results, offset, len: 1 }
    }
}

/// The layer for `layer`, from `input`, and its output.
fn build(builder: &mut Builder, layer: &model::Layer, input: Signal) -> (Box<dyn Layer>, Signal) {
    fn boxed((layer, output): (impl Layer + 'static, Signal)) -> (Box<dyn Layer>, Signal) {
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

pub(super) fn whole(buffer: Buffer, len: usize) -> Span {
    Span { buffer, offset: 0, len }
}
