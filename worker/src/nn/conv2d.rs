//! One convolution with padding SAME: a part of a conv_stack or of an inception block.

use hw2_common::model;

use super::builder::Builder;
use super::{Param, Pass, Signal};
use crate::device::{Epilogue, Op, Pointwise, PointwiseGrad, Update, Window};

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
    pub(super) fn new(
        builder: &Builder,
        conv: &model::Conv,
        finish: Finish,
        input: Signal,
        output: Signal,
    ) -> Self {
        let window = Window { kernel_size: conv.kernel_size, stride: conv.stride };
        let weight = builder.param(&conv.name, "weight");
        Self { window, weight, finish, input, output }
    }

    fn epilogue(&self, pass: Pass) -> Epilogue {
        match (self.finish, pass) {
            (Finish::Bias(bias), _) => Epilogue::Bias(bias.value),
            (Finish::BiasRelu(bias), _) => Epilogue::BiasRelu(bias.value),
            (Finish::Moments(moments), Pass::Train { .. }) => moments,
            (Finish::Moments(_), Pass::Evaluate { .. }) => Epilogue::None,
        }
    }

    pub(super) fn forward(&self, ops: &mut Vec<Op>, pass: Pass) {
        ops.push(Op::Conv2dForward {
            window: self.window,
            input: pass.of(self.input.value),
            weight: self.weight.operand,
            epilogue: self.epilogue(pass),
            output: pass.of(self.output.value),
        });
    }

    /// As one of several that read the same.
    pub(super) fn pointwise(&self, pass: Pass) -> Pointwise {
        let output = pass.of(self.output.value);
        Pointwise { weight: self.weight.operand, epilogue: self.epilogue(pass), output }
    }

    /// The way back to the input of several.
    pub(super) fn pointwise_grad_input(&self) -> PointwiseGrad {
        PointwiseGrad { grad_output: self.output.own_grad(), weight: self.weight.operand }
    }

    /// The way back to the weights of several.
    pub(super) fn pointwise_grad_weight(&self) -> PointwiseGrad {
        PointwiseGrad { grad_output: self.output.own_grad(), weight: self.weight.grad }
    }

    /// Writes the gradients of weight and bias; that of the input is written or added to.
    pub(super) fn backward(&self, ops: &mut Vec<Op>, update: Update) {
        self.backward_finish(ops);
        let grad_output = self.output.own_grad();
        let (window, input, grad_weight) = (self.window, self.input.value, self.weight.grad);
        ops.push(Op::Conv2dGradWeight { window, input, grad_output, grad_weight });
        if let Some(grad_input) = self.input.grad {
            let weight = self.weight.operand;
            ops.push(Op::Conv2dGradInput { window, grad_output, weight, update, grad_input });
        }
    }

    /// Back to what the product makes: writes the gradient of a bias.
    pub(super) fn backward_finish(&self, ops: &mut Vec<Op>) {
        let grad_output = self.output.own_grad();
        if let Finish::BiasRelu(_) = self.finish {
            ops.push(Op::ReluBackward { output: self.output.value, grad: grad_output });
        }
        if let Finish::Bias(bias) | Finish::BiasRelu(bias) = self.finish {
            ops.push(Op::BiasBackward { grad_output, grad_bias: bias.grad });
        }
    }
}
