//! What a primitive reads and writes.

use super::super::{BatchNorm, Epilogue, Operand, Pointwise, PointwiseGrad, Tensor, Update};
use super::Op;

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
