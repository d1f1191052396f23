//! The primitives as data: what a device can be asked to do.

mod access;
mod name;

use super::{
    BatchNorm, Epilogue, Gemm, Mask, Pointwise, PointwiseGrad, Span, Tensor, Update, Window,
};

/// One primitive with its operands. The plain loops in [`super::plain`] say what each computes.
///
/// No operand overlaps another one of its operation, except that some are overwritten in place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Op {
    /// output = epilogue(input * weight), padding SAME.
    Conv2dForward {
        /// What slides over the input.
        window: Window,
        /// (n, h, w, ci).
        input: Tensor,
        /// (k, k, ci, co).
        weight: Span,
        /// What follows the sum.
        epilogue: Epilogue,
        /// (n, oh, ow, co).
        output: Tensor,
    },
    /// The gradient of a convolution's input.
    Conv2dGradInput {
        /// What slid over the input.
        window: Window,
        /// (n, oh, ow, co).
        grad_output: Tensor,
        /// (k, k, ci, co).
        weight: Span,
        /// What happens to `grad_input`.
        update: Update,
        /// (n, h, w, ci).
        grad_input: Tensor,
    },
    /// The gradient of a convolution's weight.
    Conv2dGradWeight {
        /// What slid over the input.
        window: Window,
        /// (n, h, w, ci).
        input: Tensor,
        /// (n, oh, ow, co).
        grad_output: Tensor,
        /// (k, k, ci, co).
        grad_weight: Span,
    },
    /// Each output = epilogue(input * weight).
    PointwiseForward {
        /// (n, h, w, ci).
        input: Tensor,
        /// What reads it.
        convs: [Pointwise; 3],
    },
    /// The gradient of their input: the sum, in order, of what each hands back.
    PointwiseGradInput {
        /// With the weights.
        convs: [PointwiseGrad; 3],
        /// (n, h, w, ci).
        grad_input: Tensor,
    },
    /// The gradients of their weights.
    PointwiseGradWeight {
        /// (n, h, w, ci).
        input: Tensor,
        /// With the gradients of the weights.
        convs: [PointwiseGrad; 3],
    },
    /// Mean and biased variance over (n, h, w).
    Moments {
        /// (n, h, w, c).
        input: Tensor,
        /// (c).
        mean: Span,
        /// (c).
        var: Span,
    },
    /// output = max(0, (input - mean) / sqrt(var + epsilon) * weight + bias).
    BatchNormRelu {
        /// Each (c).
        bn: BatchNorm,
        /// (n, h, w, c).
        input: Tensor,
        /// (n, h, w, c).
        output: Tensor,
    },
    /// From the gradient of the output of [`Op::BatchNormRelu`] that of its input, which may lie
    /// where the other one does, and the gradients of weight and bias.
    BatchNormReluBackward {
        /// Each (c); mean and variance are those of `input` itself.
        bn: BatchNorm,
        /// (n, h, w, c).
        input: Tensor,
        /// (n, h, w, c).
        grad_output: Tensor,
        /// (n, h, w, c).
        grad_input: Tensor,
        /// (c).
        grad_weight: Span,
        /// (c).
        grad_bias: Span,
    },
    /// output = the largest of each window, padding SAME.
    MaxPoolForward {
        /// What slides over the input.
        window: Window,
        /// (n, h, w, c).
        input: Tensor,
        /// (n, oh, ow, c).
        output: Tensor,
        /// (n, oh, ow, c): the place of the first largest number in its window,
        /// row * kernel_size + column.
        places: Option<Tensor>,
    },
    /// Hands each gradient to where its number came from.
    MaxPoolBackward {
        /// What slid over the input.
        window: Window,
        /// (n, oh, ow, c), as forward wrote them.
        places: Tensor,
        /// (n, oh, ow, c).
        grad_output: Tensor,
        /// What happens to `grad_input`.
        update: Update,
        /// (n, h, w, c).
        grad_input: Tensor,
    },
    /// Multiplies by 0 or 1 / keep, as the mask and the coordinates say. Its own backward too.
    Dropout {
        /// Which numbers share a decision.
        mask: Mask,
        /// (n, h, w, c), in place.
        tensor: Tensor,
    },
    /// Sets a gradient to zero where the result of the ReLU is not positive.
    ReluBackward {
        /// (n, h, w, c), the result.
        output: Tensor,
        /// (n, h, w, c), in place.
        grad: Tensor,
    },
    /// Adds a bias to every pixel.
    AddBias {
        /// (c).
        bias: Span,
        /// (n, h, w, c), in place.
        tensor: Tensor,
    },
    /// grad_bias = the sum of grad_output over (n, h, w).
    BiasBackward {
        /// (n, h, w, c).
        grad_output: Tensor,
        /// (c).
        grad_bias: Span,
    },
    /// c = a * b, each row-major and contiguous.
    Gemm {
        /// Sizes.
        gemm: Gemm,
        /// (m, k).
        a: Span,
        /// (k, n).
        b: Span,
        /// (m, n).
        c: Span,
    },
    /// output = input, in the format of output.
    Cast {
        /// Any number of them.
        input: Span,
        /// As many.
        output: Span,
    },
    /// Adds decay * weight to grad_weight and writes decay * sum(weight^2) / 2 to penalty.
    WeightDecay {
        /// Factor, which an f32 device rounds.
        decay: f64,
        /// Any number of them.
        weight: Span,
        /// As many, in place.
        grad_weight: Span,
        /// (1).
        penalty: Span,
    },
    /// The cross-entropy of the softmax of each row, and its gradient.
    SoftmaxCrossEntropy {
        /// (n, 1, 1, classes).
        logits: Tensor,
        /// (n), class indices as numbers.
        labels: Span,
        /// (n, 1, 1, classes).
        grad_logits: Tensor,
        /// (1), the mean over n.
        loss: Span,
        /// (1), the number of rows, finite throughout, whose first largest logit is the label's.
        top1: Span,
    },
}

impl Op {
    /// Multiplications and additions of a matrix product, those with padding included; 0 for what
    /// is none.
    pub fn flops(&self) -> u64 {
        let convolution = |window: Window, input: Tensor, output: Tensor| {
            let taps = window.kernel_size * window.kernel_size;
            2 * output.rows() * output.shape.c * taps * input.shape.c
        };
        let flops = match *self {
            Self::Conv2dForward { window, input, output, .. } => convolution(window, input, output),
            Self::Conv2dGradInput { window, grad_output, grad_input, .. } => {
                convolution(window, grad_input, grad_output)
            }
            Self::Conv2dGradWeight { window, input, grad_output, .. } => {
                convolution(window, input, grad_output)
            }
            Self::PointwiseForward { input, convs } => {
                convs.map(|conv| convolution(Window::POINT, input, conv.output)).iter().sum()
            }
            Self::PointwiseGradInput { convs, grad_input: input }
            | Self::PointwiseGradWeight { input, convs } => {
                convs.map(|conv| convolution(Window::POINT, input, conv.grad_output)).iter().sum()
            }
            Self::Gemm { gemm: Gemm { m, n, k, .. }, .. } => 2 * m * n * k,
            _ => 0,
        };
        flops as u64
    }
}

#[cfg(test)]
mod tests {
    use hw2_common::model::Shape;

    use super::*;
    use crate::device::{Buffer, Format};

    #[test]
    fn a_convolution_has_one_name_and_one_size_in_every_direction() {
        let tensor = |h, c| Tensor::new(Buffer::numbered(0, Format::Full), 2, Shape { h, w: 7, c });
        let (input, output) = (tensor(6, 3), tensor(5, 4));
        let (window, span) = (
            Window { kernel_size: 3, stride: 1 },
            Span { buffer: Buffer::numbered(1, Format::Full), offset: 0, len: 108 },
        );
        let (update, epilogue) = (Update::Add, Epilogue::None);
        let forward = Op::Conv2dForward { window, input, weight: span, epilogue, output };
        let (grad_output, grad_input) = (output, input);
        let weight = span;
        let backward = [
            Op::Conv2dGradInput { window, grad_output, weight, update, grad_input },
            Op::Conv2dGradWeight { window, input, grad_output, grad_weight: span },
        ];
        assert_eq!(forward.to_string(), "conv2d_forward 3x3 6x7x3 -> 5x7x4");
        assert_eq!(forward.flops(), 2 * (2 * 5 * 7) * 4 * (3 * 3 * 3));
        assert_eq!(backward[0].to_string(), "conv2d_grad_input 3x3 6x7x3 -> 5x7x4");
        assert_eq!(backward[1].to_string(), "conv2d_grad_weight 3x3 6x7x3 -> 5x7x4");
        assert_eq!(backward.map(|op| op.flops()), [forward.flops(); 2]);
    }
}
