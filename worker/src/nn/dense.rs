//! A matrix without bias, batch normalisation, dropout, ReLU.
//!
//! Dropout multiplies by numbers that are not negative, so it may as well come after the ReLU,
//! which lets BN and ReLU be one primitive here as elsewhere.

use hw2_common::model::Shape;

use super::batch_norm::{BatchNorm, Statistics};
use super::builder::Builder;
use super::{Layer, Param, Pass, Signal};
use crate::device::{Gemm, Mask, Op, Span, Tensor};

pub(super) struct Dense {
    weight: Param,
    bn: BatchNorm,
    mask: Mask,
    weight_decay: f64,
    penalty: Span,
    input: Signal,
    /// What the matrix makes, before BN. Its gradient lies where that of the output does.
    raw: Signal,
    output: Signal,
}

impl Dense {
    /// The layer called `name` and its output (n, 1, 1, units), of `shape`.
    pub(super) fn new(
        builder: &mut Builder,
        name: &str,
        (keep, weight_decay): (f32, f64),
        shape: Shape,
        input: Signal,
    ) -> (Self, Signal) {
        let output = builder.signal(shape);
        let dense = Self {
            weight: builder.param(name, "weight"),
            bn: builder.batch_norm(name),
            mask: Mask { keep, spatial: false, layer: builder.dropout() },
            weight_decay,
            penalty: builder.penalty(),
            input,
            raw: Signal { value: builder.tensor(shape), grad: output.grad },
            output,
        };
        (dense, output)
    }
}

impl Layer for Dense {
    fn forward(&self, ops: &mut Vec<Op>, pass: Pass) {
        let (input, raw) = (pass.of(self.input.value), pass.of(self.raw.value));
        linear(ops, input, self.weight, raw);
        if let Pass::Train { .. } = pass {
            let Statistics { mean, var } = self.bn.batch;
            ops.push(Op::Moments { input: raw, mean, var });
        }
        self.bn.forward(ops, pass, self.raw, self.output);
        if pass == (Pass::Train { dropout: true }) {
            ops.push(Op::Dropout { mask: self.mask, tensor: self.output.value });
        }
    }

    fn backward(&self, ops: &mut Vec<Op>, pass: Pass) {
        let grad = self.output.own_grad();
        if pass == (Pass::Train { dropout: true }) {
            ops.push(Op::Dropout { mask: self.mask, tensor: grad });
        }
        self.bn.backward(ops, pass, self.raw, self.output);
        linear_backward(ops, self.input, self.weight, grad);
        ops.push(Op::WeightDecay {
            decay: self.weight_decay,
            weight: self.weight.value,
            grad_weight: self.weight.grad,
            penalty: self.penalty,
        });
    }
}

/// output (n, out) = input (n, in) * weight (in, out).
pub(super) fn linear(ops: &mut Vec<Op>, input: Tensor, weight: Param, output: Tensor) {
    let (m, k, n) = (input.n, input.shape.len(), output.shape.len());
    let gemm = Gemm { m, n, k, transpose_a: false, transpose_b: false };
    ops.push(Op::Gemm { gemm, a: input.span(), b: weight.operand, c: output.span() });
}

/// The gradients of weight (in, out) and of input (n, in) from that of the output (n, out).
pub(super) fn linear_backward(
    ops: &mut Vec<Op>,
    input: Signal,
    weight: Param,
    grad_output: Tensor,
) {
    let batch = input.value.n;
    let (inputs, outputs) = (input.value.shape.len(), grad_output.shape.len());
    let gemm = Gemm { m: inputs, n: outputs, k: batch, transpose_a: true, transpose_b: false };
    let (a, b) = (input.value.span(), grad_output.span());
    ops.push(Op::Gemm { gemm, a, b, c: weight.grad });
    if let Some(grad_input) = input.grad {
        let gemm = Gemm { m: batch, n: inputs, k: outputs, transpose_a: false, transpose_b: true };
        let (a, c) = (grad_output.span(), grad_input.span());
        ops.push(Op::Gemm { gemm, a, b: weight.operand, c });
    }
}
