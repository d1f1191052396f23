//! Gives a layer, while it is built, its place in the flat vectors and its activations.

use hw2_common::layout::{ParamLayout, Tensors};
use hw2_common::model::Shape;

use super::batch_norm::{BatchNorm, Statistics};
use super::{Param, Signal};
use crate::device::{Buffer, Span, Tensor};

/// The flat vectors.
#[derive(Clone, Copy, Debug)]
pub(super) struct Vectors {
    /// Weights, in the layout of `params`.
    pub(super) params: Buffer,
    /// Their gradient.
    pub(super) grads: Buffer,
    /// BN statistics of the batch, in the layout of `buffers`.
    pub(super) batch_statistics: Buffer,
    /// Running BN statistics.
    pub(super) running_statistics: Buffer,
    /// [`LOSS`], [`TOP1`], and from [`PENALTIES`] on the penalty of each dense layer.
    pub(super) results: Buffer,
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
    /// Length of each buffer so far.
    buffers: Vec<usize>,
    pub(super) vectors: Vectors,
    /// Dropout layers built so far.
    dropouts: u16,
    /// Layers with a penalty built so far.
    penalties: usize,
}

impl<'a> Builder<'a> {
    /// Of batches of `batch_size` images, with room for `penalties` penalties.
    pub(super) fn new(layout: &'a ParamLayout, batch_size: usize, penalties: usize) -> Self {
        let mut buffers = Vec::new();
        let vectors = Vectors {
            params: alloc(&mut buffers, layout.params.len()),
            grads: alloc(&mut buffers, layout.params.len()),
            batch_statistics: alloc(&mut buffers, layout.buffers.len()),
            running_statistics: alloc(&mut buffers, layout.buffers.len()),
            results: alloc(&mut buffers, PENALTIES + penalties),
        };
        Self { layout, batch_size, buffers, vectors, dropouts: 0, penalties: 0 }
    }

    /// The length of each buffer that anybody has asked for, in the order of their numbers.
    pub(super) fn finish(self) -> Vec<usize> {
        self.buffers
    }

    /// Parameter `{prefix}.{part}`.
    pub(super) fn param(&self, prefix: &str, part: &str) -> Param {
        let of = |buffer| place(&self.layout.params, buffer, prefix, part);
        Param { value: of(self.vectors.params), grad: of(self.vectors.grads) }
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

    /// Memory for a batch of `shape`.
    pub(super) fn tensor(&mut self, shape: Shape) -> Tensor {
        let buffer = alloc(&mut self.buffers, self.batch_size * shape.len());
        Tensor::new(buffer, self.batch_size, shape)
    }

    /// Memory for one number for each image of a batch.
    pub(super) fn per_image(&mut self) -> Span {
        let len = self.batch_size;
        Span { buffer: alloc(&mut self.buffers, len), offset: 0, len }
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

fn alloc(buffers: &mut Vec<usize>, len: usize) -> Buffer {
    buffers.push(len);
    Buffer::numbered(buffers.len() - 1)
}

/// The range of tensor `{prefix}.{part}` in `buffer`.
fn place(tensors: &Tensors, buffer: Buffer, prefix: &str, part: &str) -> Span {
    let name = format!("{prefix}.{part}");
    let entry = tensors.get(&name).expect("network and layout are of one spec");
    Span { buffer, offset: entry.range.start, len: entry.range.len() }
}
