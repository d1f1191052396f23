//! The largest of each window, padding SAME.

use hw2_common::model::Shape;

use super::builder::Builder;
use super::{Layer, Pass, Signal};
use crate::device::{Format, Op, Tensor, Update, Window};

pub(super) struct MaxPool {
    window: Window,
    input: Signal,
    output: Signal,
    /// Where in its window each output was found.
    places: Tensor,
}

impl MaxPool {
    /// The pool and its output, of `shape`.
    pub(super) fn new(
        builder: &mut Builder,
        window: Window,
        shape: Shape,
        input: Signal,
    ) -> (Self, Signal) {
        let output = builder.signal(shape);
        let places = builder.tensor_of(Format::Byte, shape);
        (Self { window, input, output, places }, output)
    }

    pub(super) fn forward(&self, ops: &mut Vec<Op>, pass: Pass) {
        let places = match pass {
            Pass::Train { .. } => Some(self.places),
            Pass::Evaluate { .. } => None,
        };
        let (input, output) = (pass.of(self.input.value), pass.of(self.output.value));
        ops.push(Op::MaxPoolForward { window: self.window, input, output, places });
    }

    /// The gradient of the input is written or added to.
    pub(super) fn backward(&self, ops: &mut Vec<Op>, update: Update) {
        if let Some(grad_input) = self.input.grad {
            ops.push(Op::MaxPoolBackward {
                window: self.window,
                places: self.places,
                grad_output: self.output.own_grad(),
                update,
                grad_input,
            });
        }
    }
}

impl Layer for MaxPool {
    fn forward(&self, ops: &mut Vec<Op>, pass: Pass) {
        self.forward(ops, pass);
    }

    fn backward(&self, ops: &mut Vec<Op>, _: Pass) {
        self.backward(ops, Update::Overwrite);
    }
}
