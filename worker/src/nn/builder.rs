//! Gives a layer, while it is built, its place in the flat vectors and its activations.

use hw2_common::layout::{ParamLayout, Tensors};
use hw2_common::model::Shape;

use super::batch_norm::{BatchNorm, Statistics};
use super::{Param, Signal};
use crate::device::{Buffer, Device, Span, Tensor};

/// The flat vectors on the device.
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

pub(super) struct Builder<'a, D> {
    pub(super) device: &'a mut D,
    pub(super) layout: &'a ParamLayout,
    pub(super) vectors: Vectors,
    /// Images of a batch.
    pub(super) batch_size: usize,
    /// Dropout layers built so far.
    pub(super) dropouts: u16,
    /// Layers with a penalty built so far.
    pub(super) penalties: usize,
}

impl<D: Device> Builder<'_, D> {
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
        Tensor::new(self.device.alloc(self.batch_size * shape.len()), self.batch_size, shape)
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

/// The range of tensor `{prefix}.{part}` in `buffer`.
fn place(tensors: &Tensors, buffer: Buffer, prefix: &str, part: &str) -> Span {
    let name = format!("{prefix}.{part}");
    let entry = tensors.get(&name).expect("network and layout are of one spec");
    Span { buffer, offset: entry.range.start, len: entry.range.len() }
}
