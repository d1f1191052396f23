//! Branches of convolutions side by side, concatenated along the channels, then one batch
//! normalisation and ReLU over the whole. "Going deeper with convolutions" (2014) and "Rethinking
//! the Inception architecture" (2015), Szegedy et al.
//!
//! Three branches begin with a 1x1 convolution of the block's input. These heads write side by
//! side, and are given to the device as one operation. The first is all of its branch, so that the
//! concatenation before BN lies in two places: with the heads, and the rest.

use hw2_common::model::{self, Shape};

use super::batch_norm::BatchNorm;
use super::builder::Builder;
use super::conv2d::{Conv2d, Finish};
use super::max_pool::MaxPool;
use super::{Layer, Pass, Signal};
use crate::device::{Op, Update, Window};

/// The pool at the head of a branch.
const POOL: Window = Window { kernel_size: 3, stride: 1 };

pub(super) struct Inception {
    heads: [Conv2d; 3],
    /// What follows the heads of all branches but the first.
    tails: [Vec<Conv2d>; 2],
    pool: MaxPool,
    pooled: Conv2d,
    /// The parts of the concatenation.
    parts: [Part; 2],
    input: Signal,
}

/// Some channels of the concatenation.
struct Part {
    bn: BatchNorm,
    /// Before BN.
    raw: Signal,
    output: Signal,
}

impl Inception {
    /// The block `layer` and its output.
    pub(super) fn new(
        builder: &mut Builder,
        layer: &model::Layer,
        branches: &[model::Branch],
        input: Signal,
    ) -> (Self, Signal) {
        let [first, second, third, fourth] = branches else {
            unreachable!("an inception block has four branches")
        };
        let bn = builder.batch_norm(&layer.name);
        let output = builder.signal(layer.output);
        let headed = [first, second, third];
        let widths = headed.map(|branch| branch.convs[0].output.c);
        let heads = builder.signal(Shape { c: widths.iter().sum(), ..layer.output });
        let rest = builder.tensor(Shape { c: layer.output.c - widths[0], ..layer.output });
        let (own, others) = (widths[0], rest.shape.c);
        let part = |start, c, raw| Part {
            bn: bn.channels(start, c),
            raw,
            output: output.channels(start, c),
        };
        let rest_output = output.channels(own, others);
        let parts = [
            part(0, own, heads.channels(0, own)),
            part(own, others, Signal { value: rest, grad: rest_output.grad }),
        ];

        let mut start = 0;
        let [one, two, three] = headed.map(|branch| {
            let (conv, signal) =
                (&branch.convs[0], heads.channels(start, branch.convs[0].output.c));
            start += signal.value.shape.c;
            let finish = finish(builder, conv, &parts[0].bn);
            (Conv2d::new(builder, conv, finish, input, signal), signal)
        });
        let (pool, pooled) = MaxPool::new(builder, POOL, input.value.shape, input);
        let mut start = 0;
        let mut tail = |builder: &mut Builder, convs: &[model::Conv], signal: Signal| {
            let c = convs.last().expect("an arm has a convolution").output.c;
            let (arm, bn) = (parts[1].raw.channels(start, c), parts[1].bn.channels(start, c));
            start += c;
            chain(builder, convs, signal, arm, &bn)
        };
        let tails =
            [tail(builder, &second.convs[1..], two.1), tail(builder, &third.convs[1..], three.1)];
        let pooled = tail(builder, &fourth.convs, pooled).pop().expect("one after the pool");
        let heads = [one.0, two.0, three.0];
        (Self { heads, tails, pool, pooled, parts, input }, output)
    }
}

/// Convolutions one after the other, from `signal` to `arm`, which `bn` normalises.
fn chain(
    builder: &mut Builder,
    convs: &[model::Conv],
    mut signal: Signal,
    arm: Signal,
    bn: &BatchNorm,
) -> Vec<Conv2d> {
    let mut built = Vec::new();
    for (index, conv) in convs.iter().enumerate() {
        let is_last = index + 1 == convs.len();
        let output = if is_last { arm } else { builder.signal(conv.output) };
        let finish = finish(builder, conv, bn);
        built.push(Conv2d::new(builder, conv, finish, signal, output));
        signal = output;
    }
    built
}

/// What follows the sum of `conv`, which `bn` normalises if it makes an arm.
fn finish(builder: &Builder, conv: &model::Conv, bn: &BatchNorm) -> Finish {
    match conv.epilogue {
        model::Epilogue::None => Finish::Moments(bn.moments()),
        model::Epilogue::Bias => Finish::Bias(builder.param(&conv.name, "bias")),
        model::Epilogue::BiasRelu => Finish::BiasRelu(builder.param(&conv.name, "bias")),
        model::Epilogue::BnRelu => unreachable!("a branch shares the BN of its block"),
    }
}

impl Layer for Inception {
    fn forward(&self, ops: &mut Vec<Op>, pass: Pass) {
        let convs = self.heads.each_ref().map(|head| head.pointwise(pass));
        ops.push(Op::PointwiseForward { input: pass.of(self.input.value), convs });
        self.tails.iter().flatten().for_each(|conv| conv.forward(ops, pass));
        self.pool.forward(ops, pass);
        self.pooled.forward(ops, pass);
        for Part { bn, raw, output } in &self.parts {
            bn.forward(ops, pass, *raw, *output);
        }
    }

    fn backward(&self, ops: &mut Vec<Op>, pass: Pass) {
        for Part { bn, raw, output } in &self.parts {
            bn.backward(ops, pass, *raw, *output);
        }
        for tail in &self.tails {
            tail.iter().rev().for_each(|conv| conv.backward(ops, Update::Overwrite));
        }
        let heads = self.heads.each_ref();
        heads.iter().for_each(|head| head.backward_finish(ops));
        let convs = heads.map(Conv2d::pointwise_grad_weight);
        ops.push(Op::PointwiseGradWeight { input: self.input.value, convs });
        let mut update = Update::Overwrite;
        if let Some(grad_input) = self.input.grad {
            let convs = heads.map(Conv2d::pointwise_grad_input);
            ops.push(Op::PointwiseGradInput { convs, grad_input });
            update = Update::Add;
        }
        self.pooled.backward(ops, Update::Overwrite);
        self.pool.backward(ops, update);
    }
}
