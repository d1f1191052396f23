//! Drops whole feature maps and scales the others by 1 / keep, in place.

use super::builder::Builder;
use super::{Layer, Pass, Signal};
use crate::device::{Mask, Op};

pub(super) struct SpatialDropout {
    mask: Mask,
    signal: Signal,
}

impl SpatialDropout {
    /// Drops maps of `signal`, which is input and output.
    pub(super) fn new(builder: &mut Builder, keep: f32, signal: Signal) -> Self {
        Self { mask: Mask { keep, spatial: true, layer: builder.dropout() }, signal }
    }
}

impl Layer for SpatialDropout {
    fn forward(&self, ops: &mut Vec<Op>, pass: Pass) {
        if pass == (Pass::Train { dropout: true }) {
            ops.push(Op::Dropout { mask: self.mask, tensor: self.signal.value });
        }
    }

    fn backward(&self, ops: &mut Vec<Op>, pass: Pass) {
        if let (Pass::Train { dropout: true }, Some(grad)) = (pass, self.signal.grad) {
            ops.push(Op::Dropout { mask: self.mask, tensor: grad });
        }
    }
}
