//! Drops whole feature maps and scales the others by 1 / keep, in place.

use super::builder::Builder;
use super::{Layer, Pass, Signal};
use crate::device::{Device, Mask, Op};

pub(super) struct SpatialDropout {
    mask: Mask,
    signal: Signal,
}

impl SpatialDropout {
    /// Drops maps of `signal`, which is input and output.
    pub(super) fn new<D: Device>(builder: &mut Builder<D>, keep: f32, signal: Signal) -> Self {
        Self { mask: Mask { keep, spatial: true, layer: builder.dropout() }, signal }
    }
}

impl<D: Device> Layer<D> for SpatialDropout {
    fn forward(&self, device: &mut D, pass: Pass) {
        if pass == (Pass::Train { dropout: true }) {
            device.run(Op::Dropout { mask: self.mask, tensor: self.signal.value });
        }
    }

    fn backward(&self, device: &mut D, pass: Pass) {
        if let (Pass::Train { dropout: true }, Some(grad)) = (pass, self.signal.grad) {
            device.run(Op::Dropout { mask: self.mask, tensor: grad });
        }
    }
}
