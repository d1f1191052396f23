//! What a primitive is called.

use std::fmt;

use super::super::{Gemm, Tensor, Window};
use super::Op;

/// The name of the primitive and its sizes for one image, always from input to output.
impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut convolution = |direction: &str, window: Window, input: Tensor, output: Tensor| {
            let k = window.kernel_size;
            write!(f, "conv2d_{direction} {k}x{k} {} -> {}", input.shape, output.shape)
        };
        match *self {
            Self::Conv2dForward { window, input, output, .. } => {
                convolution("forward", window, input, output)
            }
            Self::Conv2dGradInput { window, grad_output, grad_input, .. } => {
                convolution("grad_input", window, grad_input, grad_output)
            }
            Self::Conv2dGradWeight { window, input, grad_output, .. } => {
                convolution("grad_weight", window, input, grad_output)
            }
            Self::PointwiseForward { input, convs } => {
                let output = Tensor::joined(convs.map(|conv| conv.output));
                write!(f, "pointwise_forward {} -> {}", input.shape, output.shape)
            }
            Self::PointwiseGradInput { convs, grad_input } => {
                let output = Tensor::joined(convs.map(|conv| conv.grad_output));
                write!(f, "pointwise_grad_input {} -> {}", grad_input.shape, output.shape)
            }
            Self::PointwiseGradWeight { input, convs } => {
                let output = Tensor::joined(convs.map(|conv| conv.grad_output));
                write!(f, "pointwise_grad_weight {} -> {}", input.shape, output.shape)
            }
            Self::Moments { input, .. } => write!(f, "moments {}", input.shape),
            Self::BatchNormRelu { input, .. } => write!(f, "batch_norm_relu {}", input.shape),
            Self::BatchNormReluBackward { input, .. } => {
                write!(f, "batch_norm_relu_backward {}", input.shape)
            }
            Self::MaxPoolForward { input, output, .. } => {
                write!(f, "max_pool_forward {} -> {}", input.shape, output.shape)
            }
            Self::MaxPoolBackward { grad_output, grad_input, .. } => {
                write!(f, "max_pool_backward {} -> {}", grad_input.shape, grad_output.shape)
            }
            Self::Dropout { tensor, .. } => write!(f, "dropout {}", tensor.shape),
            Self::ReluBackward { output, .. } => write!(f, "relu_backward {}", output.shape),
            Self::AddBias { tensor, .. } => write!(f, "add_bias {}", tensor.shape),
            Self::BiasBackward { grad_output, .. } => {
                write!(f, "bias_backward {}", grad_output.shape)
            }
            Self::Gemm { gemm: Gemm { m, n, k, .. }, .. } => write!(f, "gemm {m}x{n}x{k}"),
            Self::Cast { input, .. } => write!(f, "cast {}", input.len),
            Self::WeightDecay { .. } => f.write_str("weight_decay"),
            Self::SoftmaxCrossEntropy { .. } => f.write_str("softmax_cross_entropy"),
        }
    }
}
