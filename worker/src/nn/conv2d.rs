//! One convolution with padding SAME: a part of a conv_stack or of an inception block.

use hw2_common::model;

use super::builder::Builder;
use super::{Param, Pass, Signal};
use crate::device::{Device, Epilogue, Update, Window};

pub(super) struct Conv2d {
    window: Window,
    weight: Param,
    finish: Finish,
    input: Signal,
    output: Signal,
}

/// What happens to the sum.
#[derive(Clone, Copy)]
pub(super) enum Finish {
    /// A bias is added.
    Bias(Param),
    /// A bias is added, then ReLU.
    BiasRelu(Param),
    /// A batch normalisation follows and needs the moments of the batch.
    Moments(Epilogue),
}

impl Conv2d {
    /// The convolution `conv`, from input (n, h, w, ci) to output (n, oh, ow, co).
    pub(super) fn new<D: Device>(
        builder: &Builder<D>,
        conv: &model::Conv,
        finish: Finish,
        input: Signal,
        output: Signal,
    ) -> Self {
        let window = Window { kernel_size: conv.kernel_size, stride: conv.stride };
        let weight = builder.param(&conv.name, "weight");
        Self { window, weight, finish, input, output }
    }

    pub(super) fn forward<D: Device>(&self, device: &mut D, pass: Pass) {
        let epilogue = match (self.finish, pass) {
            (Finish::Bias(bias), _) => Epilogue::Bias(bias.value),
            (Finish::BiasRelu(bias), _) => Epilogue::BiasRelu(bias.value),
            (Finish::Moments(moments), Pass::Train { .. }) => moments,
            (Finish::Moments(_), Pass::Evaluate { .. }) => Epilogue::None,
        };
        let (input, output) = (pass.of(self.input.value), pass.of(self.output.value));
        device.conv2d_forward(self.window, input, self.weight.value, epilogue, output);
    }

    /// Writes the gradients of weight and bias; that of the input is written or added to.
    pub(super) fn backward<D: Device>(&self, device: &mut D, update: Update) {
        let grad_output = self.output.own_grad();
        match self.finish {
            Finish::Moments(_) => {}
            Finish::Bias(bias) => device.bias_backward(grad_output, bias.grad),
            Finish::BiasRelu(bias) => {
                device.relu_backward(self.output.value, grad_output);
                device.bias_backward(grad_output, bias.grad);
            }
        }
        let input = self.input.value;
        device.conv2d_grad_weight(self.window, input, grad_output, self.weight.grad);
        if let Some(grad_input) = self.input.grad {
            let weight = self.weight.value;
            device.conv2d_grad_input(self.window, grad_output, weight, update, grad_input);
        }
    }
}
