//! Batch normalisation and the ReLU after it: max(0, (x - mean) / sqrt(var + epsilon) * w + b).

use super::{Param, Pass, Signal};
use crate::device::{self, Epilogue, Op, Span, Tensor};

/// Per-channel numbers (c).
#[derive(Clone, Copy, Debug)]
pub(super) struct Statistics {
    pub(super) mean: Span,
    pub(super) var: Span,
}

/// The parameters (c) of a batch normalisation and what it subtracts and divides by.
#[derive(Clone, Copy, Debug)]
pub(super) struct BatchNorm {
    pub(super) weight: Param,
    pub(super) bias: Param,
    /// Of this batch, made by every training pass.
    pub(super) batch: Statistics,
    /// For evaluation.
    pub(super) running: Statistics,
}

impl BatchNorm {
    /// Lets the convolution that makes channels `start` to `start + c` make their statistics too.
    pub(super) fn moments(&self, start: usize, c: usize) -> Epilogue {
        let part = |span: Span| Span { offset: span.offset + start, len: c, ..span };
        Epilogue::Moments { mean: part(self.batch.mean), var: part(self.batch.var) }
    }

    /// output.value (n, h, w, c) from input (n, h, w, c), whose statistics exist.
    pub(super) fn forward(&self, ops: &mut Vec<Op>, pass: Pass, input: Tensor, output: Signal) {
        let (input, output) = (pass.of(input), pass.of(output.value));
        ops.push(Op::BatchNormRelu { bn: self.of(pass), input, output });
    }

    /// Turns output.grad from the gradient of the output into that of the input.
    pub(super) fn backward(&self, ops: &mut Vec<Op>, pass: Pass, input: Tensor, output: Signal) {
        ops.push(Op::BatchNormReluBackward {
            bn: self.of(pass),
            input,
            grad: output.own_grad(),
            grad_weight: self.weight.grad,
            grad_bias: self.bias.grad,
        });
    }

    fn of(&self, pass: Pass) -> device::BatchNorm {
        let Statistics { mean, var } = match pass {
            Pass::Train { .. } => self.batch,
            Pass::Evaluate { .. } => self.running,
        };
        device::BatchNorm { mean, var, weight: self.weight.value, bias: self.bias.value }
    }
}
