//! The specification: every primitive as plain loops, for f32 and f64.
//!
//! One primitive, one file, with the name that it has on every device. What goes to a buffer in
//! bfloat16 is rounded when the operation is done. Speed is no concern here, but inner loops run
//! along channels, so that the full network in f64 takes seconds and not minutes.

pub(super) mod batch_norm;
pub(super) mod bias;
pub(super) mod cast;
pub(super) mod conv2d;
pub(super) mod dropout;
pub(super) mod gemm;
pub(super) mod max_pool;
pub(super) mod pointwise;
pub(super) mod relu;
pub(super) mod softmax_cross_entropy;
pub(super) mod weight_decay;

use super::memory::Memory;
use super::{Buffer, Device, DeviceError, DropoutCoordinates, Float, Op, Request, Span};

/// Plain loops in host memory, on the calling thread.
#[derive(Debug, Default)]
pub struct Plain<T> {
    memory: Memory<T>,
    coordinates: Option<DropoutCoordinates>,
}

impl<T: Float + Default> Plain<T> {
    /// A device without buffers.
    pub fn new() -> Self {
        Self::default()
    }
}

impl<T: Float> Device for Plain<T> {
    type Elem = T;

    fn describe(&self) -> String {
        format!("plain loops in f{}", 8 * size_of::<T>())
    }

    fn alloc(&mut self, requests: &[Request]) -> Vec<Buffer> {
        self.memory.alloc(requests)
    }

    fn upload(&mut self, target: Span, values: &[T]) {
        self.memory.span_mut(target).copy_from_slice(values);
        cast::round(&mut self.memory, target.into());
    }

    fn download(&mut self, source: Span, values: &mut [T]) -> Result<(), DeviceError> {
        values.copy_from_slice(self.memory.span(source));
        Ok(())
    }

    fn set_dropout(&mut self, coordinates: DropoutCoordinates) {
        self.coordinates = Some(coordinates);
    }

    fn run(&mut self, op: Op) {
        let memory = &mut self.memory;
        match op {
            Op::Conv2dForward { window, input, weight, epilogue, output } => {
                conv2d::forward(memory, window, input, weight, epilogue, output);
            }
            Op::Conv2dGradInput { window, grad_output, weight, update, grad_input } => {
                conv2d::grad_input(memory, window, grad_output, weight, update, grad_input);
            }
            Op::Conv2dGradWeight { window, input, grad_output, grad_weight } => {
                conv2d::grad_weight(memory, window, input, grad_output, grad_weight);
            }
            Op::PointwiseForward { input, convs } => pointwise::forward(memory, input, convs),
            Op::PointwiseGradInput { convs, grad_input } => {
                pointwise::grad_input(memory, convs, grad_input);
            }
            Op::PointwiseGradWeight { input, convs } => {
                pointwise::grad_weight(memory, input, convs);
            }
            Op::Moments { input, mean, var } => batch_norm::moments(memory, input, mean, var),
            Op::BatchNormRelu { bn, input, output } => {
                batch_norm::relu_forward(memory, bn, input, output);
            }
            Op::BatchNormReluBackward {
                bn,
                input,
                grad_output,
                grad_input: grad,
                grad_weight,
                grad_bias,
            } => {
                if grad != grad_output {
                    memory.copy(grad_output, grad);
                }
                batch_norm::relu_backward(memory, bn, input, grad, grad_weight, grad_bias);
            }
            Op::MaxPoolForward { window, input, output, places } => {
                max_pool::forward(memory, window, input, output, places);
            }
            Op::MaxPoolBackward { window, places, grad_output, update, grad_input } => {
                max_pool::backward(memory, window, places, grad_output, update, grad_input);
            }
            Op::Dropout { mask, tensor } => {
                let coordinates = self.coordinates.expect("set_dropout comes before dropout");
                dropout::apply(memory, mask, coordinates, tensor);
            }
            Op::ReluBackward { output, grad } => relu::backward(memory, output, grad),
            Op::AddBias { bias, tensor } => bias::add(memory, bias, tensor),
            Op::BiasBackward { grad_output, grad_bias } => {
                bias::backward(memory, grad_output, grad_bias);
            }
            Op::Gemm { gemm, a, b, c } => gemm::multiply(memory, gemm, a, b, c),
            Op::Cast { input, output } => cast::cast(memory, input, output),
            Op::WeightDecay { decay, weight, grad_weight, penalty } => {
                weight_decay::apply(memory, decay, weight, grad_weight, penalty);
            }
            Op::SoftmaxCrossEntropy { logits, labels, grad_logits, loss, top1 } => {
                softmax_cross_entropy::apply(memory, logits, labels, grad_logits, loss, top1);
            }
        }
        op.writes().into_iter().for_each(|written| cast::round(memory, written));
    }
}
