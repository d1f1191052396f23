//! Where numbers live and what can be done with them: the trait that every device implements.
//!
//! A device knows no layers. It owns flat buffers of numbers, named by handles, and a set of
//! primitives that read some and overwrite others. All memory is allocated before the first step, so
//! that addresses never change; no primitive returns anything, so that a device may run behind its
//! caller: an error surfaces at the next download.

mod choice;
pub mod cpu;
mod float;
mod memory;
pub mod plain;
mod tensor;

#[cfg(test)]
mod tests;

pub use choice::Choice;
pub use float::Float;
pub use tensor::{BatchNorm, Buffer, Epilogue, Gemm, Mask, Span, Tensor, Update, Window};

use hw2_common::ids::{GlobalStep, ReplicaId};

/// Added to a variance before its root is taken.
pub const BN_EPSILON: f64 = 1e-5;

/// What makes the dropout masks of one micro-batch: nothing else does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropoutCoordinates {
    /// The run's seed.
    pub seed: u64,
    /// The step being computed.
    pub step: GlobalStep,
    /// The slice of the global batch.
    pub replica: ReplicaId,
}

/// A device stopped working; nothing that it holds can be trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{device}: {problem}")]
pub struct DeviceError {
    /// Which device.
    pub device: String,
    /// What it reported.
    pub problem: String,
}

/// Memory and primitives. Shapes are (n, h, w, c) throughout; the plain loops in [`plain`] say what
/// each primitive computes, and every device is tested against them.
pub trait Device: Send {
    /// What the buffers hold.
    type Elem: Float;

    /// The device in words, for a person: what it is and how much of it is used.
    fn describe(&self) -> String;

    /// A new buffer of `len` zeros. Lives as long as the device.
    fn alloc(&mut self, len: usize) -> Buffer;

    /// Overwrites `target` with `values`, which has its length.
    fn upload(&mut self, target: Span, values: &[Self::Elem]);

    /// Waits for everything asked so far and copies `source` to `values`, which has its length.
    ///
    /// # Errors
    /// Whatever went wrong on the device since the last download.
    fn download(&mut self, source: Span, values: &mut [Self::Elem]) -> Result<(), DeviceError>;

    /// Chooses the masks of all following [`Device::dropout`].
    fn set_dropout(&mut self, coordinates: DropoutCoordinates);

    /// output (n, oh, ow, co) = epilogue(input (n, h, w, ci) * weight (k, k, ci, co)), padding SAME.
    fn conv2d_forward(
        &mut self,
        window: Window,
        input: Tensor,
        weight: Span,
        epilogue: Epilogue,
        output: Tensor,
    );

    /// grad_input (n, h, w, ci) from grad_output (n, oh, ow, co) and weight (k, k, ci, co).
    fn conv2d_grad_input(
        &mut self,
        window: Window,
        grad_output: Tensor,
        weight: Span,
        update: Update,
        grad_input: Tensor,
    );

    /// grad_weight (k, k, ci, co) from input (n, h, w, ci) and grad_output (n, oh, ow, co).
    fn conv2d_grad_weight(
        &mut self,
        window: Window,
        input: Tensor,
        grad_output: Tensor,
        grad_weight: Span,
    );

    /// Mean and biased variance (c) of input (n, h, w, c) over (n, h, w).
    fn moments(&mut self, input: Tensor, mean: Span, var: Span);

    /// output = max(0, (input - mean) / sqrt(var + epsilon) * weight + bias), both (n, h, w, c).
    fn batch_norm_relu(&mut self, bn: BatchNorm, input: Tensor, output: Tensor);

    /// Turns `grad` (n, h, w, c) from that of the output of [`Device::batch_norm_relu`] into that of
    /// its `input`, whose own moments `bn` holds, and writes the gradients (c) of weight and bias.
    fn batch_norm_relu_backward(
        &mut self,
        bn: BatchNorm,
        input: Tensor,
        grad: Tensor,
        grad_weight: Span,
        grad_bias: Span,
    );

    /// output (n, oh, ow, c) = the largest of each window of input (n, h, w, c), padding SAME. The
    /// place of the first largest in its window, row * kernel_size + column, goes to `places`, shaped
    /// as output.
    fn max_pool_forward(
        &mut self,
        window: Window,
        input: Tensor,
        output: Tensor,
        places: Option<Tensor>,
    );

    /// grad_input (n, h, w, c) from grad_output and the `places` of forward, both (n, oh, ow, c).
    fn max_pool_backward(
        &mut self,
        window: Window,
        places: Tensor,
        grad_output: Tensor,
        update: Update,
        grad_input: Tensor,
    );

    /// Multiplies `tensor` in place by 0 or 1 / keep, as `mask` and the coordinates say. Its own
    /// backward too.
    fn dropout(&mut self, mask: Mask, tensor: Tensor);

    /// Sets to zero where `output`, the result of a ReLU, is not positive; `grad` alike in shape.
    fn relu_backward(&mut self, output: Tensor, grad: Tensor);

    /// Adds bias (c) to every row of tensor (n, h, w, c).
    fn add_bias(&mut self, bias: Span, tensor: Tensor);

    /// grad_bias (c) = sum of grad_output (n, h, w, c) over (n, h, w).
    fn bias_backward(&mut self, grad_output: Tensor, grad_bias: Span);

    /// c (m, n) = a (m, k) * b (k, n), each row-major and contiguous.
    fn gemm(&mut self, gemm: Gemm, a: Span, b: Span, c: Span);

    /// Adds decay * weight to grad_weight and writes decay * sum(weight^2) / 2 to penalty (1).
    fn weight_decay(&mut self, decay: f32, weight: Span, grad_weight: Span, penalty: Span);

    /// From logits (n, 1, 1, classes) and labels (n), class indices as numbers: the mean over n of
    /// the cross-entropy of their softmax to loss (1), its gradient to grad_logits, and to top1 (1)
    /// the number of rows, finite throughout, whose first largest logit is the label's.
    fn softmax_cross_entropy(
        &mut self,
        logits: Tensor,
        labels: Span,
        grad_logits: Tensor,
        loss: Span,
        top1: Span,
    );
}
