//! A matrix with bias that makes the logits. The softmax is part of the loss.

use hw2_common::model::Shape;

use super::builder::Builder;
use super::dense::{linear, linear_backward};
use super::{Layer, Param, Pass, Signal};
use crate::device::{Device, Op};

pub(super) struct SoftmaxLinear {
    weight: Param,
    bias: Param,
    input: Signal,
    logits: Signal,
}

impl SoftmaxLinear {
    /// The layer called `name` and its logits (n, 1, 1, classes), of `shape`.
    pub(super) fn new<D: Device>(
        builder: &mut Builder<D>,
        name: &str,
        shape: Shape,
        input: Signal,
    ) -> (Self, Signal) {
        let (weight, bias) = (builder.param(name, "weight"), builder.param(name, "bias"));
        let logits = builder.signal(shape);
        (Self { weight, bias, input, logits }, logits)
    }
}

impl<D: Device> Layer<D> for SoftmaxLinear {
    fn forward(&self, device: &mut D, pass: Pass) {
        let logits = pass.of(self.logits.value);
        linear(device, pass.of(self.input.value), self.weight, logits);
        device.run(Op::AddBias { bias: self.bias.value, tensor: logits });
    }

    fn backward(&self, device: &mut D, _: Pass) {
        let grad_output = self.logits.own_grad();
        device.run(Op::BiasBackward { grad_output, grad_bias: self.bias.grad });
        linear_backward(device, self.input, self.weight, grad_output);
    }
}
