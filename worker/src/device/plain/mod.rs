//! The specification: every primitive as plain loops, for f32 and f64.
//!
//! One primitive, one file, with the name that it has on every device. Speed is no concern here, but
//! inner loops run along channels, so that the full network in f64 takes seconds and not minutes.

pub(super) mod batch_norm;
pub(super) mod bias;
pub(super) mod conv2d;
pub(super) mod dropout;
pub(super) mod gemm;
pub(super) mod max_pool;
pub(super) mod relu;
pub(super) mod softmax_cross_entropy;
pub(super) mod weight_decay;

use super::memory::Memory;
use super::{
    BatchNorm, Buffer, Device, DeviceError, DropoutCoordinates, Epilogue, Float, Gemm, Mask, Span,
    Tensor, Update, Window,
};

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

    fn alloc(&mut self, len: usize) -> Buffer {
        self.memory.alloc(len)
    }

    fn upload(&mut self, target: Span, values: &[T]) {
        self.memory.span_mut(target).copy_from_slice(values);
    }

    fn download(&mut self, source: Span, values: &mut [T]) -> Result<(), DeviceError> {
        values.copy_from_slice(self.memory.span(source));
        Ok(())
    }

    fn set_dropout(&mut self, coordinates: DropoutCoordinates) {
        self.coordinates = Some(coordinates);
    }

    fn conv2d_forward(
        &mut self,
        window: Window,
        input: Tensor,
        weight: Span,
        epilogue: Epilogue,
        output: Tensor,
    ) {
        conv2d::forward(&mut self.memory, window, input, weight, epilogue, output);
    }

    fn conv2d_grad_input(
        &mut self,
        window: Window,
        grad_output: Tensor,
        weight: Span,
        update: Update,
        grad_input: Tensor,
    ) {
        conv2d::grad_input(&mut self.memory, window, grad_output, weight, update, grad_input);
    }

    fn conv2d_grad_weight(
        &mut self,
        window: Window,
        input: Tensor,
        grad_output: Tensor,
        grad_weight: Span,
    ) {
        conv2d::grad_weight(&mut self.memory, window, input, grad_output, grad_weight);
    }

    fn moments(&mut self, input: Tensor, mean: Span, var: Span) {
        batch_norm::moments(&mut self.memory, input, mean, var);
    }

    fn batch_norm_relu(&mut self, bn: BatchNorm, input: Tensor, output: Tensor) {
        batch_norm::relu_forward(&mut self.memory, bn, input, output);
    }

    fn batch_norm_relu_backward(
        &mut self,
        bn: BatchNorm,
        input: Tensor,
        grad: Tensor,
        grad_weight: Span,
        grad_bias: Span,
    ) {
        batch_norm::relu_backward(&mut self.memory, bn, input, grad, grad_weight, grad_bias);
    }

    fn max_pool_forward(
        &mut self,
        window: Window,
        input: Tensor,
        output: Tensor,
        places: Option<Tensor>,
    ) {
        max_pool::forward(&mut self.memory, window, input, output, places);
    }

    fn max_pool_backward(
        &mut self,
        window: Window,
        places: Tensor,
        grad_output: Tensor,
        update: Update,
        grad_input: Tensor,
    ) {
        max_pool::backward(&mut self.memory, window, places, grad_output, update, grad_input);
    }

    fn dropout(&mut self, mask: Mask, tensor: Tensor) {
        let coordinates = self.coordinates.expect("set_dropout comes before dropout");
        dropout::apply(&mut self.memory, mask, coordinates, tensor);
    }

    fn relu_backward(&mut self, output: Tensor, grad: Tensor) {
        relu::backward(&mut self.memory, output, grad);
    }

    fn add_bias(&mut self, bias: Span, tensor: Tensor) {
        bias::add(&mut self.memory, bias, tensor);
    }

    fn bias_backward(&mut self, grad_output: Tensor, grad_bias: Span) {
        bias::backward(&mut self.memory, grad_output, grad_bias);
    }

    fn gemm(&mut self, gemm: Gemm, a: Span, b: Span, c: Span) {
        gemm::multiply(&mut self.memory, gemm, a, b, c);
    }

    fn weight_decay(&mut self, decay: f32, weight: Span, grad_weight: Span, penalty: Span) {
        weight_decay::apply(&mut self.memory, decay, weight, grad_weight, penalty);
    }

    fn softmax_cross_entropy(
        &mut self,
        logits: Tensor,
        labels: Span,
        grad_logits: Tensor,
        loss: Span,
        top1: Span,
    ) {
        softmax_cross_entropy::apply(&mut self.memory, logits, labels, grad_logits, loss, top1);
    }
}
