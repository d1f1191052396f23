//! Gives a layer, while it is built, its place in the flat vectors and its activations.

use hw2_common::config::Precision;
use hw2_common::layout::{ParamLayout, Tensors};
use hw2_common::model::Shape;

use super::batch_norm::{BatchNorm, Statistics};
use super::{Param, Signal};
use crate::device::{Buffer, Format, Request, Span, Tensor};

/// The flat vectors.
#[derive(Clone, Copy, Debug)]
pub(super) struct Vectors {
    /// Weights, in the layout of `params`.
    pub(super) params: Buffer,
    /// The same as products read them: rounded to the precision of the activations.
    pub(super) operands: Buffer,
    /// Their gradient.
    pub(super) grads: Buffer,
    /// BN statistics of the batch, in the layout of `buffers`.
    pub(super) batch_statistics: Buffer,
    /// Running BN statistics.
    pub(super) running_statistics: Buffer,
    /// [`LOSS`], [`TOP1`], and from [`PENALTIES`] on the penalty of each dense layer.
    pub(super) results: Buffer,
}

impl Vectors {
    pub(super) fn all(self) -> [Buffer; 6] {
        let Self { params, operands, grads, batch_statistics, running_statistics, results } = self;
        [params, operands, grads, batch_statistics, running_statistics, results]
    }
}

/// Index of the mean cross-entropy among the results.
pub(super) const LOSS: usize = 0;
/// Index of the number of hits among the results.
pub(super) const TOP1: usize = 1;
/// Index of the first penalty among the results.
pub(super) const PENALTIES: usize = 2;

pub(super) struct Builder<'a> {
    layout: &'a ParamLayout,
    /// Images of a batch.
    batch_size: usize,
    /// Of activations and their gradients.
    format: Format,
    /// For each buffer so far.
    requests: Vec<Request>,
    pub(super) vectors: Vectors,
    /// Dropout layers built so far.
    dropouts: u16,
    /// Layers with a penalty built so far.
    penalties: usize,
}

impl<'a> Builder<'a> {
    /// Of batches of `batch_size` images, with room for `penalties` penalties.
    pub(super) fn new(
        layout: &'a ParamLayout,
        batch_size: usize,
        precision: Precision,
        penalties: usize,
    ) -> Self {
        let mut requests = Vec::new();
        let mut lasting = |len| alloc(&mut requests, Request::lasting(len));
        let params = lasting(layout.params.len());
        let grads = lasting(layout.params.len());
        let batch_statistics = lasting(layout.buffers.len());
        let running_statistics = lasting(layout.buffers.len());
        let results = lasting(PENALTIES + penalties);
        let (format, operands) = match precision {
            Precision::Fp32 | Precision::Tf32 => (Format::Full, params),
            Precision::Bf16 => {
                let format = Format::Bf16;
                let request = Request { format, ..Request::lasting(layout.params.len()) };
                (format, alloc(&mut requests, request))
            }
        };
        let vectors =
            Vectors { params, operands, grads, batch_statistics, running_statistics, results };
        Self { layout, batch_size, format, requests, vectors, dropouts: 0, penalties: 0 }
    }

    /// Every buffer that anybody has asked for, in the order of their numbers; those of activations
    /// do not say yet when they are used.
    pub(super) fn finish(self) -> Vec<Request> {
        self.requests
    }

    /// Parameter `{prefix}.{part}`.
    pub(super) fn param(&self, prefix: &str, part: &str) -> Param {
        let of = |buffer| place(&self.layout.params, buffer, prefix, part);
        Param {
            value: of(self.vectors.params),
            operand: of(self.vectors.operands),
            grad: of(self.vectors.grads),
        }
    }

    /// The BN `{prefix}.bn`.
    pub(super) fn batch_norm(&self, prefix: &str) -> BatchNorm {
        let of = |buffer, part| place(&self.layout.buffers, buffer, prefix, part);
        let statistics = |buffer| Statistics {
            mean: of(buffer, "bn.running_mean"),
            var: of(buffer, "bn.running_var"),
        };
        BatchNorm {
            weight: self.param(prefix, "bn.weight"),
            bias: self.param(prefix, "bn.bias"),
            batch: statistics(self.vectors.batch_statistics),
            running: statistics(self.vectors.running_statistics),
        }
    }

    /// Memory for a batch of `shape` of activations.
    pub(super) fn tensor(&mut self, shape: Shape) -> Tensor {
        self.tensor_of(self.format, shape)
    }

    /// Memory for a batch of `shape`.
    pub(super) fn tensor_of(&mut self, format: Format, shape: Shape) -> Tensor {
        let len = self.batch_size * shape.len();
        let buffer = alloc(&mut self.requests, Request { format, ..Request::lasting(len) });
        Tensor::new(buffer, self.batch_size, shape)
    }

    /// Memory for one number for each image of a batch.
    pub(super) fn per_image(&mut self) -> Span {
        let len = self.batch_size;
        Span { buffer: alloc(&mut self.requests, Request::lasting(len)), offset: 0, len }
    }

    /// An activation of `shape` with its gradient.
    pub(super) fn signal(&mut self, shape: Shape) -> Signal {
        Signal { value: self.tensor(shape), grad: Some(self.tensor(shape)) }
    }

    /// The number of the next dropout layer.
    pub(super) fn dropout(&mut self) -> u16 {
        self.dropouts += 1;
        self.dropouts - 1
    }

    /// Where the next penalty goes.
    pub(super) fn penalty(&mut self) -> Span {
        self.penalties += 1;
        let offset = PENALTIES + self.penalties - 1;
        Span { buffer: self.vectors.results, offset, len: 1 }
    }
}

fn alloc(requests: &mut Vec<Request>, request: Request) -> Buffer {
    let buffer = Buffer::numbered(requests.len(), request.format);
    requests.push(request);
    buffer
}

/// The range of tensor `{prefix}.{part}` in `buffer`.
fn place(tensors: &Tensors, buffer: Buffer, prefix: &str, part: &str) -> Span {
    let name = format!("{prefix}.{part}");
    let entry = tensors.get(&name).expect("network and layout are of one spec");
    Span { buffer, offset: entry.range.start, len: entry.range.len() }
}
