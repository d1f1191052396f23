//! What a network asks of a device: memory, the operations of a training step, those of an
//! evaluation.

use std::ops::Range;

use hw2_common::config::Precision;
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
use crate::device::{Buffer, Op, Operand, Request, Segment, Span, Tensor, Window};

/// A network for batches of a certain size, tied to numbered buffers.
pub struct Program {
    pub(super) layout: ParamLayout,
    pub(super) vectors: Vectors,
    pub(super) images: Tensor,
    pub(super) labels: Span,
    logits: Signal,
    penalties: usize,
    requests: Vec<Request>,
    layers: Vec<Box<dyn Layer>>,
    /// Of each layer.
    names: Vec<String>,
    /// For each layer the index of the first parameter that is its own or of a later layer.
    first_params: Vec<usize>,
}

/// Forward and backward over a whole batch.
#[derive(Clone, Debug)]
pub struct TrainingStep {
    /// In order.
    pub forward: Vec<ForwardPart>,
    /// The first segment makes the statistics, each other one a bucket, in the order of backward;
    /// the last one does nothing more and hands over the results.
    pub backward: Vec<Segment>,
}

/// Some layers' forward pass, which can begin when their parameters are there.
#[derive(Clone, Debug)]
pub struct ForwardPart {
    /// Parameters that no part before it needs: those of a bucket.
    pub params: Range<usize>,
    /// In order.
    pub ops: Vec<Op>,
}

impl TrainingStep {
    /// All operations in order.
    pub fn ops(&self) -> impl Iterator<Item = Op> {
        let forward = self.forward.iter().flat_map(|part| &part.ops);
        forward.chain(self.backward.iter().flat_map(|segment| &segment.ops)).copied()
    }
}

impl Program {
    /// For batches of up to `batch_size` images, with activations of `precision`.
    pub fn new(network: &Network, batch_size: usize, precision: Precision) -> Self {
        assert!(batch_size > 0, "a batch holds an image");
        let layout = ParamLayout::new(network);
        let dense =
            network.layers.iter().filter(|layer| matches!(layer.kind, LayerKind::Dense { .. }));
        let penalties = dense.count();
        let mut builder = Builder::new(&layout, batch_size, precision, penalties);
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
        let requests = builder.finish();
        let names = network.layers.iter().map(|layer| layer.name.clone()).collect();
        let first_params = (0..layers.len()).map(|layer| first_param(&layout, layer)).collect();
        let mut program = Self {
            vectors,
            images,
            labels,
            logits: signal,
            penalties,
            requests,
            layers,
            names,
            first_params,
            layout,
        };
        program.note_uses();
        program
    }

    /// The buffers, in the order of their numbers. Those of activations are used between places in
    /// a training step with dropout; an evaluation, which is a part of it in the same order, uses
    /// none for longer.
    pub fn requests(&self) -> &[Request] {
        &self.requests
    }

    /// Where the images of a batch are.
    pub(crate) fn images(&self) -> Tensor {
        self.images
    }

    /// The most images of a batch.
    pub fn batch_size(&self) -> usize {
        self.images.n
    }

    /// Forward and backward over a whole batch.
    pub fn train(&self, dropout: bool) -> TrainingStep {
        let pass = Pass::Train { dropout };
        TrainingStep { forward: self.forward(pass), backward: self.backward(pass) }
    }

    /// The operations of a training step with dropout, forward and backward, of each layer, and of
    /// the loss.
    pub fn ops_by_layer(&self) -> Vec<(&str, Vec<Op>)> {
        let pass = Pass::Train { dropout: true };
        let layers = self.names.iter().zip(&self.layers).map(|(name, layer)| {
            let mut ops = Vec::new();
            layer.forward(&mut ops, pass);
            layer.backward(&mut ops, pass);
            (name.as_str(), ops)
        });
        layers.chain([("loss", vec![self.loss()])]).collect()
    }

    fn forward(&self, pass: Pass) -> Vec<ForwardPart> {
        let part = |params: Range<usize>| ForwardPart { ops: self.load(&params), params };
        let mut parts: Vec<ForwardPart> =
            self.layout.buckets().into_iter().rev().map(part).collect();
        let mut current = 0;
        for (index, layer) in self.layers.iter().enumerate() {
            let mut entries = self.layout.params.entries().iter();
            // A layer without parameters need not wait for those of the next one.
            if let Some(entry) = entries.find(|entry| entry.layer == index) {
                let has_it = |part: &ForwardPart| part.params.contains(&entry.range.start);
                current = parts.iter().position(has_it).expect("buckets hold every parameter");
            }
            layer.forward(&mut parts[current].ops, pass);
        }
        parts
    }

    /// To be done when these parameters have been replaced, before they are used.
    fn load(&self, params: &Range<usize>) -> Vec<Op> {
        let Vectors { params: values, operands, .. } = self.vectors;
        let of = |buffer| Span { buffer, offset: params.start, len: params.len() };
        let cast = || Op::Cast { input: of(values), output: of(operands) };
        (values != operands).then(cast).into_iter().collect()
    }

    fn loss(&self) -> Op {
        Op::SoftmaxCrossEntropy {
            logits: self.logits.value,
            labels: self.labels,
            grad_logits: self.logits.own_grad(),
            loss: self.result(LOSS),
            top1: self.result(TOP1),
        }
    }

    fn backward(&self, pass: Pass) -> Vec<Segment> {
        let statistics = whole(self.vectors.batch_statistics, self.layout.buffers.len());
        let mut segments = vec![Segment { ops: vec![self.loss()], made: statistics }];
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
        segments.push(Segment { ops, made: self.results() });
        segments
    }

    /// Forward over the first `n` images of a batch, with the running statistics. What comes out
    /// for an image does not depend on the others.
    pub fn evaluate(&self, n: usize) -> Vec<Op> {
        let mut ops = self.load(&(0..self.layout.params.len()));
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

    /// Says of the buffers of activations when they are used.
    fn note_uses(&mut self) {
        let ops: Vec<Op> = self.train(true).ops().collect();
        let mut uses = vec![None; self.requests.len()];
        let mut use_at = |buffer: Buffer, place: usize| {
            let (first, _) = *uses[buffer.number()].get_or_insert((place, place));
            uses[buffer.number()] = Some((first, place));
        };
        // The batch is there before the first operation, the logits may be asked for after the
        // last.
        [self.images.buffer, self.labels.buffer].into_iter().for_each(|buffer| use_at(buffer, 0));
        for (place, op) in ops.iter().enumerate() {
            let operands = op.reads().into_iter().chain(op.writes());
            operands.for_each(|Operand { buffer, .. }| use_at(buffer, place));
        }
        use_at(self.logits.value.buffer, ops.len());
        let lasting = self.vectors.all().map(Buffer::number);
        for (number, use_) in uses.into_iter().enumerate() {
            if !lasting.contains(&number) {
                self.requests[number].used = use_.map(|(first, last)| first..=last);
            }
        }
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
