//! Branches of convolutions side by side, concatenated along the channels, then one batch
//! normalisation and ReLU over the whole. "Going deeper with convolutions" (2014) and "Rethinking the
//! Inception architecture" (2015), Szegedy et al.

use hw2_common::model;

use super::batch_norm::BatchNorm;
use super::builder::Builder;
use super::conv2d::{Conv2d, Finish};
use super::max_pool::MaxPool;
use super::{Layer, Pass, Signal};
use crate::device::{Op, Tensor, Update, Window};

/// The pool at the head of a branch.
const POOL: Window = Window { kernel_size: 3, stride: 1 };

pub(super) struct Inception {
    branches: Vec<Branch>,
    bn: BatchNorm,
    /// The concatenation, before BN.
    raw: Tensor,
    output: Signal,
}

struct Branch {
    pool: Option<MaxPool>,
    convs: Vec<Conv2d>,
}

impl Inception {
    /// The block `layer` and its output.
    pub(super) fn new(
        builder: &mut Builder,
        layer: &model::Layer,
        branches: &[model::Branch],
        input: Signal,
    ) -> (Self, Signal) {
        let bn = builder.batch_norm(&layer.name);
        let raw = builder.tensor(layer.output);
        let output = builder.signal(layer.output);
        // BN turns the gradient of its output into that of its input where it lies.
        let whole = Signal { value: raw, grad: output.grad };
        let mut start = 0;
        let mut built = Vec::new();
        for branch in branches {
            let last = branch.convs.last().expect("a branch has a convolution");
            let arm = whole.channels(start, last.output.c);
            let moments = Finish::Moments(bn.moments(start, last.output.c));
            built.push(Branch::new(builder, branch, input, arm, moments));
            start += last.output.c;
        }
        (Self { branches: built, bn, raw, output }, output)
    }
}

impl Branch {
    /// From `input` to `arm`, its slice of the concatenation, whose moments are made by `moments`.
    fn new(
        builder: &mut Builder,
        branch: &model::Branch,
        input: Signal,
        arm: Signal,
        moments: Finish,
    ) -> Self {
        let mut signal = input;
        let pool = branch.pool_first.then(|| {
            let (pool, pooled) = MaxPool::new(builder, POOL, input.value.shape, input);
            signal = pooled;
            pool
        });
        let mut convs = Vec::new();
        for conv in &branch.convs {
            let (finish, output) = match conv.epilogue {
                model::Epilogue::None => (moments, arm),
                model::Epilogue::Bias => {
                    (Finish::Bias(builder.param(&conv.name, "bias")), builder.signal(conv.output))
                }
                model::Epilogue::BiasRelu => {
                    let bias = builder.param(&conv.name, "bias");
                    (Finish::BiasRelu(bias), builder.signal(conv.output))
                }
                model::Epilogue::BnRelu => unreachable!("a branch shares the BN of its block"),
            };
            convs.push(Conv2d::new(builder, conv, finish, signal, output));
            signal = output;
        }
        Self { pool, convs }
    }

    /// `update` says what happens to the gradient of the block's input.
    fn backward(&self, ops: &mut Vec<Op>, update: Update) {
        for (index, conv) in self.convs.iter().enumerate().rev() {
            let shared = index == 0 && self.pool.is_none();
            conv.backward(ops, if shared { update } else { Update::Overwrite });
        }
        if let Some(pool) = &self.pool {
            pool.backward(ops, update);
        }
    }
}

impl Layer for Inception {
    fn forward(&self, ops: &mut Vec<Op>, pass: Pass) {
        for Branch { pool, convs } in &self.branches {
            pool.iter().for_each(|pool| pool.forward(ops, pass));
            convs.iter().for_each(|conv| conv.forward(ops, pass));
        }
        self.bn.forward(ops, pass, self.raw, self.output);
    }

    fn backward(&self, ops: &mut Vec<Op>, pass: Pass) {
        self.bn.backward(ops, pass, self.raw, self.output);
        for (index, branch) in self.branches.iter().enumerate() {
            branch.backward(ops, if index == 0 { Update::Overwrite } else { Update::Add });
        }
    }
}
