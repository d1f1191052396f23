//! Multiplies by 0 or 1 / keep; word i of the layer's Philox stream makes decision i.

use super::launch::{Arg, Traffic, int, numbers};
use super::lower::Lowering;
use super::unit::Unit;
use crate::device::{Mask, Tensor};

pub(super) fn apply(to: &mut Lowering, mask: Mask, tensor: Tensor) {
    let count = numbers(tensor);
    let decisions = if mask.spatial { tensor.n * tensor.shape.c } else { count };
    let factors = to.scratch(4 * decisions);
    let kept = (1.0 / f64::from(mask.keep)) as f32;
    let args = vec![
        Arg::Coordinates,
        Arg::Int(mask.layer.into()),
        Arg::Float(mask.keep),
        Arg::Float(kept),
        factors.into(),
        int(decisions),
    ];
    to.threads(
        "dropout_factors",
        decisions.div_ceil(4),
        Traffic { written: 4 * decisions, ..Traffic::default() },
        args,
    );
    let pixels = if mask.spatial { tensor.shape.h * tensor.shape.w } else { 0 };
    let unit = Unit::of(&[tensor]);
    let args = vec![tensor.into(), factors.into(), unit.matrix(tensor), int(pixels)];
    let traffic = Traffic { read: 4 * decisions, ..Traffic::default() };
    let kernel = unit.kernel("dropout", "dropout_wide");
    to.for_each(kernel, unit.count(count), traffic.updates(tensor), args);
}
