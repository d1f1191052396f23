//! The primitives as data: what a device can be asked to do.

use std::fmt;

use super::{
    BatchNorm, Epilogue, Gemm, Mask, Operand, Pointwise, PointwiseGrad, Span, Tensor, Update,
    Window,
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
    /// From the gradient of the output of [`Op::BatchNormRelu`] that of its input, which may lie where
    /// the other one does, and the gradients of weight and bias.
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
    /// What the result depends on. An operand that is overwritten in place or added to is here and
    /// among the [writes](Self::writes).
    pub fn reads(&self) -> Vec<Operand> {
        match *self {
            Self::Conv2dForward { input, weight, epilogue, .. } => {
                let mut reads = vec![input.into(), weight.into()];
                reads.extend(epilogue.reads());
                reads
            }
            Self::PointwiseForward { input, convs } => {
                let mut reads = vec![input.into()];
                for Pointwise { weight, epilogue, .. } in convs {
                    reads.push(weight.into());
                    reads.extend(epilogue.reads());
                }
                reads
            }
            Self::PointwiseGradInput { convs, .. } => {
                let both = |conv: PointwiseGrad| [conv.grad_output.into(), conv.weight.into()];
                convs.into_iter().flat_map(both).collect()
            }
            Self::PointwiseGradWeight { input, convs } => {
                let grads = convs.map(|conv| conv.grad_output.into());
                std::iter::once(input.into()).chain(grads).collect()
            }
            Self::Conv2dGradInput { grad_output, weight, update, grad_input, .. } => {
                with_sum(vec![grad_output.into(), weight.into()], update, grad_input)
            }
            Self::Conv2dGradWeight { input, grad_output, .. } => {
                vec![input.into(), grad_output.into()]
            }
            Self::Moments { input, .. } | Self::MaxPoolForward { input, .. } => vec![input.into()],
            Self::BatchNormRelu { bn, input, .. } => with_channels(bn, vec![input.into()]),
            Self::BatchNormReluBackward { bn, input, grad_output, .. } => {
                with_channels(bn, vec![input.into(), grad_output.into()])
            }
            Self::MaxPoolBackward { places, grad_output, update, grad_input, .. } => {
                with_sum(vec![places.into(), grad_output.into()], update, grad_input)
            }
            Self::Dropout { tensor, .. } => vec![tensor.into()],
            Self::ReluBackward { output, grad } => vec![output.into(), grad.into()],
            Self::AddBias { bias, tensor } => vec![bias.into(), tensor.into()],
            Self::BiasBackward { grad_output, .. } => vec![grad_output.into()],
            Self::Gemm { a, b, .. } => vec![a.into(), b.into()],
            Self::Cast { input, .. } => vec![input.into()],
            Self::WeightDecay { weight, grad_weight, .. } => {
                vec![weight.into(), grad_weight.into()]
            }
            Self::SoftmaxCrossEntropy { logits, labels, .. } => vec![logits.into(), labels.into()],
        }
    }

    /// What is different afterwards.
    pub fn writes(&self) -> Vec<Operand> {
        match *self {
            Self::Conv2dForward { epilogue, output, .. } => {
                let mut writes = vec![output.into()];
                writes.extend(epilogue.writes());
                writes
            }
            Self::PointwiseForward { convs, .. } => {
                let mut writes = Vec::new();
                for Pointwise { epilogue, output, .. } in convs {
                    writes.push(output.into());
                    writes.extend(epilogue.writes());
                }
                writes
            }
            Self::Conv2dGradInput { grad_input, .. }
            | Self::PointwiseGradInput { grad_input, .. }
            | Self::MaxPoolBackward { grad_input, .. } => vec![grad_input.into()],
            Self::PointwiseGradWeight { convs, .. } => {
                convs.map(|conv| conv.weight.into()).to_vec()
            }
            Self::Conv2dGradWeight { grad_weight, .. } => vec![grad_weight.into()],
            Self::Moments { mean, var, .. } => vec![mean.into(), var.into()],
            Self::BatchNormRelu { output, .. } => vec![output.into()],
            Self::BatchNormReluBackward { grad_input, grad_weight, grad_bias, .. } => {
                vec![grad_input.into(), grad_weight.into(), grad_bias.into()]
            }
            Self::MaxPoolForward { output, places, .. } => {
                std::iter::once(output).chain(places).map(Operand::from).collect()
            }
            Self::Dropout { tensor, .. } | Self::AddBias { tensor, .. } => vec![tensor.into()],
            Self::ReluBackward { grad, .. } => vec![grad.into()],
            Self::BiasBackward { grad_bias, .. } => vec![grad_bias.into()],
            Self::Gemm { c, .. } => vec![c.into()],
            Self::Cast { output, .. } => vec![output.into()],
            Self::WeightDecay { grad_weight, penalty, .. } => {
                vec![grad_weight.into(), penalty.into()]
            }
            Self::SoftmaxCrossEntropy { grad_logits, loss, top1, .. } => {
                vec![grad_logits.into(), loss.into(), top1.into()]
            }
        }
    }

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

impl Epilogue {
    fn reads(self) -> Option<Operand> {
        match self {
            Self::Bias(bias) | Self::BiasRelu(bias) => Some(bias.into()),
            Self::None | Self::Moments { .. } => None,
        }
    }

    fn writes(self) -> Vec<Operand> {
        match self {
            Self::Moments { mean, var } => vec![mean.into(), var.into()],
            Self::None | Self::Bias(_) | Self::BiasRelu(_) => Vec::new(),
        }
    }
}

/// What is added to is read too.
fn with_sum(mut reads: Vec<Operand>, update: Update, sum: Tensor) -> Vec<Operand> {
    if update == Update::Add {
        reads.push(sum.into());
    }
    reads
}

fn with_channels(bn: BatchNorm, mut reads: Vec<Operand>) -> Vec<Operand> {
    reads.extend([bn.mean, bn.var, bn.weight, bn.bias].map(Operand::from));
    reads
}

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
