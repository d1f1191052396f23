//! Softmax, cross-entropy and their gradient, row by row.

use super::launch::{Traffic, int};
use super::lower::Lowering;
use crate::device::{Span, Tensor};

pub(super) fn apply(
    to: &mut Lowering,
    logits: Tensor,
    labels: Span,
    grad_logits: Tensor,
    loss: Span,
    top1: Span,
) {
    let n = logits.n;
    let results = to.pairs(n);
    let mut args = vec![logits.into(), labels.into(), grad_logits.into()];
    args.extend([logits.shape.c, logits.ld, grad_logits.ld, n].map(int));
    args.push(results.into());
    let traffic = Traffic::default().reads(logits).reads(labels).writes(grad_logits);
    to.warps("softmax_rows", n, traffic.writes_pairs(n), args);
    let args = vec![results.into(), int(n), loss.into(), top1.into()];
    to.blocks("softmax_sums", 1, Traffic::default().reads_pairs(n).writes(loss).writes(top1), args);
}
