//! The largest of each window, padding SAME.

use hw2_common::model::Shape;

use super::builder::Builder;
use super::{Layer, Pass, Signal};
use crate::device::{Device, Op, Tensor, Update, Window};

pub(super) struct MaxPool {
    window: Window,
    input: Signal,
    output: Signal,
    /// Where in its window each output was found.
    places: Tensor,
}

impl MaxPool {
    /// The pool and its output, of `shape`.
    pub(super) fn new<D: Device>(
        builder: &mut Builder<D>,
        window: Window,
        shape: Shape,
        input: Signal,
    ) -> (Self, Signal) {
        let output = builder.signal(shape);
        let places = builder.tensor(shape);
        (Self { window, input, output, places }, output)
    }

    pub(super) fn forward<D: Device>(&self, device: &mut D, pass: Pass) {
        let places = match pass {
            Pass::Train { .. } => Some(self.places),
            Pass::Evaluate { .. } => None,
        };
        let (input, output) = (pass.of(self.input.value), pass.of(self.output.value));
        device.run(Op::MaxPoolForward { window: self.window, input, output, places });
    }

    /// The gradient of the input is written or added to.
    pub(super) fn backward<D: Device>(&self, device: &mut D, update: Update) {
        if let Some(grad_input) = self.input.grad {
            device.run(Op::MaxPoolBackward {
                window: self.window,
                places: self.places,
                grad_output: self.output.own_grad(),
                update,
                grad_input,
            });
        }
    }
}

impl<D: Device> Layer<D> for MaxPool {
    fn forward(&self, device: &mut D, pass: Pass) {
        self.forward(device, pass);
    }

    fn backward(&self, device: &mut D, _: Pass) {
        self.backward(device, Update::Overwrite);
    }
}
