//! Convolutions one after the other, each followed by batch normalisation and ReLU.

use hw2_common::model;

use super::batch_norm::BatchNorm;
use super::builder::Builder;
use super::conv2d::{Conv2d, Finish};
use super::{Layer, Pass, Signal};
use crate::device::{Op, Update};

pub(super) struct ConvStack {
    stages: Vec<Stage>,
}

struct Stage {
    conv: Conv2d,
    bn: BatchNorm,
    /// What the convolution makes, before BN. Its gradient lies where that of the output does.
    raw: Signal,
    output: Signal,
}

impl ConvStack {
    /// The stack and its output.
    pub(super) fn new(
        builder: &mut Builder,
        convs: &[model::Conv],
        input: Signal,
    ) -> (Self, Signal) {
        let mut signal = input;
        let mut stages = Vec::new();
        for conv in convs {
            let bn = builder.batch_norm(&conv.name);
            let raw = builder.tensor(conv.output);
            let output = builder.signal(conv.output);
            let raw = Signal { value: raw, grad: output.grad };
            let conv = Conv2d::new(builder, conv, Finish::Moments(bn.moments()), signal, raw);
            stages.push(Stage { conv, bn, raw, output });
            signal = output;
        }
        (Self { stages }, signal)
    }
}

impl Layer for ConvStack {
    fn forward(&self, ops: &mut Vec<Op>, pass: Pass) {
        for Stage { conv, bn, raw, output } in &self.stages {
            conv.forward(ops, pass);
            bn.forward(ops, pass, *raw, *output);
        }
    }

    fn backward(&self, ops: &mut Vec<Op>, pass: Pass) {
        for Stage { conv, bn, raw, output } in self.stages.iter().rev() {
            bn.backward(ops, pass, *raw, *output);
            conv.backward(ops, Update::Overwrite);
        }
    }
}
