//! Batch normalisation and the ReLU after it: max(0, (x - mean) / sqrt(var + epsilon) * w + b).

use super::{Param, Pass, Signal};
use crate::device::{self, Epilogue, Op, Span};

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
    /// That of channels `start` to `start + c` alone.
    pub(super) fn channels(&self, start: usize, c: usize) -> Self {
        let span = |span: Span| Span { offset: span.offset + start, len: c, ..span };
        let param = |param: Param| Param {
            value: span(param.value),
            operand: span(param.operand),
            grad: span(param.grad),
        };
        let both = |of: Statistics| Statistics { mean: span(of.mean), var: span(of.var) };
        Self {
            weight: param(self.weight),
            bias: param(self.bias),
            batch: both(self.batch),
            running: both(self.running),
        }
    }

    /// Lets the convolution that makes the channels make their statistics too.
    pub(super) fn moments(&self) -> Epilogue {
        Epilogue::Moments { mean: self.batch.mean, var: self.batch.var }
    }

    /// output.value (n, h, w, c) from input.value (n, h, w, c), whose statistics exist.
    pub(super) fn forward(&self, ops: &mut Vec<Op>, pass: Pass, input: Signal, output: Signal) {
        let (input, output) = (pass.of(input.value), pass.of(output.value));
        ops.push(Op::BatchNormRelu { bn: self.of(pass), input, output });
    }

    /// input.grad, which may lie where output.grad does.
    pub(super) fn backward(&self, ops: &mut Vec<Op>, pass: Pass, input: Signal, output: Signal) {
        ops.push(Op::BatchNormReluBackward {
            bn: self.of(pass),
            input: input.value,
            grad_output: output.own_grad(),
            grad_input: input.own_grad(),
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
