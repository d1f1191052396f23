//! A matrix with bias that makes the logits. The softmax is part of the loss.

use hw2_common::model::Shape;

use super::builder::Builder;
use super::dense::{linear, linear_backward};
use super::{Layer, Param, Pass, Signal};
use crate::device::{Format, Op};

pub(super) struct SoftmaxLinear {
    weight: Param,
    bias: Param,
    input: Signal,
    logits: Signal,
}

impl SoftmaxLinear {
    /// The layer called `name` and its logits (n, 1, 1, classes), of `shape`.
    pub(super) fn new(
        builder: &mut Builder,
        name: &str,
        shape: Shape,
        input: Signal,
    ) -> (Self, Signal) {
        let (weight, bias) = (builder.param(name, "weight"), builder.param(name, "bias"));
        // A rounded logit would make ties of different ones.
        let value = builder.tensor_of(Format::Full, shape);
        let logits = Signal { value, grad: Some(builder.tensor(shape)) };
        (Self { weight, bias, input, logits }, logits)
    }
}

impl Layer for SoftmaxLinear {
    fn forward(&self, ops: &mut Vec<Op>, pass: Pass) {
        let logits = pass.of(self.logits.value);
        linear(ops, pass.of(self.input.value), self.weight, logits);
        ops.push(Op::AddBias { bias: self.bias.value, tensor: logits });
    }

    fn backward(&self, ops: &mut Vec<Op>, _: Pass) {
        let grad_output = self.logits.own_grad();
        ops.push(Op::BiasBackward { grad_output, grad_bias: self.bias.grad });
        linear_backward(ops, self.input, self.weight, grad_output);
    }
}
