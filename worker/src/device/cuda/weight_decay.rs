//! The derivative and the value of decay * sum(weight^2) / 2.

use super::launch::{Arg, Traffic, int};
use super::lower::Lowering;
use crate::device::Span;

/// Numbers of one block.
const NUMBERS_PER_BLOCK: usize = 256 * 16;

pub(super) fn apply(to: &mut Lowering, decay: f64, weight: Span, grad_weight: Span, penalty: Span) {
    let blocks = weight.len.div_ceil(NUMBERS_PER_BLOCK);
    let decay = Arg::Float(decay as f32);
    let sums = to.pairs(blocks);
    let mut args = vec![weight.into(), grad_weight.into(), decay.clone(), int(weight.len)];
    args.push(sums.into());
    let traffic = Traffic::default().reads(weight).updates(grad_weight).writes_pairs(blocks);
    to.blocks("weight_decay", blocks, traffic, args);
    let args = vec![sums.into(), int(blocks), decay, penalty.into()];
    to.blocks(
        "weight_decay_penalty",
        1,
        Traffic::default().reads_pairs(blocks).writes(penalty),
        args,
    );
}
