//! The layers of the network as programs for a device, and the model that runs them.
//!
//! One layer, one file. A layer is built once: it takes its place in the flat vectors by name, asks
//! for memory for what it makes, and from then on only says which operations are to be done. No
//! device, file, network, clock or async is known to it.

mod batch_norm;
mod builder;
mod conv2d;
mod conv_stack;
mod dense;
mod inception;
mod max_pool;
mod model;
mod program;
mod softmax_linear;
mod spatial_dropout;

#[cfg(test)]
mod tests;

pub use model::{Engine, Made, Model, StepOutcome};
pub use program::{ForwardPart, Program, TrainingStep};

use crate::device::{Op, Span, Tensor};

/// One block of the network, tied to its memory.
trait Layer: Send {
    /// Adds what makes the output from the input.
    fn forward(&self, ops: &mut Vec<Op>, pass: Pass);

    /// Adds what makes, from the gradient of the output, which may be overwritten, the gradients of
    /// the parameters, and of the input where that has one. Follows a training pass of `forward`.
    fn backward(&self, ops: &mut Vec<Op>, pass: Pass);
}

/// What a forward pass is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pass {
    /// A whole batch, with its own BN statistics.
    Train {
        /// Whether dropout layers drop.
        dropout: bool,
    },
    /// The first `n` places of the batch, with the running statistics, nothing dropped.
    Evaluate {
        /// Number of images.
        n: usize,
    },
}

impl Pass {
    /// The images of `tensor` that take part.
    fn of(self, tensor: Tensor) -> Tensor {
        match self {
            Self::Train { .. } => tensor,
            Self::Evaluate { n } => tensor.first(n),
        }
    }
}

/// An activation and, unless nobody wants it, its gradient, alike in shape.
#[derive(Clone, Copy, Debug)]
struct Signal {
    value: Tensor,
    grad: Option<Tensor>,
}

impl Signal {
    /// Some of the channels of both.
    fn channels(&self, start: usize, c: usize) -> Self {
        Self {
            value: self.value.channels(start, c),
            grad: self.grad.map(|grad| grad.channels(start, c)),
        }
    }

    /// The gradient of what a layer made itself.
    fn own_grad(&self) -> Tensor {
        self.grad.expect("the output of a layer has a gradient")
    }
}

/// A parameter and its gradient: the same range of flat vectors.
#[derive(Clone, Copy, Debug)]
struct Param {
    value: Span,
    /// Its value as products read it.
    operand: Span,
    grad: Span,
}
