//! Convolutions of kernel size 1 that read the same tensor: one product. Their weights are packed
//! side by side in the workspace for it.

use super::conv2d;
use super::launch::{Arg, Place, Traffic, int, number_bytes};
use super::lower::{Lowering, Rows};
use crate::device::{Format, Pointwise, PointwiseGrad, Span, Tensor};

/// Room for a matrix (ci, co of all) in the workspace.
struct Packed {
    place: Place,
    format: Format,
    /// Columns of each part.
    columns: [usize; 3],
    rows: usize,
}

impl Packed {
    /// For the columns of `parts`, which have `rows` rows.
    fn new(to: &mut Lowering, format: Format, parts: [Span; 3], rows: usize) -> Self {
        let columns = parts.map(|part| part.len / rows);
        let len = rows * columns.iter().sum::<usize>();
        Self { place: to.scratch(number_bytes(format) * len), format, columns, rows }
    }

    /// Columns of all.
    fn width(&self) -> usize {
        self.columns.iter().sum()
    }

    fn matrix(&self) -> Rows {
        Rows::columns(self.place, self.format, self.width())
    }

    /// How many columns each part has, as arguments, and how many numbers there are.
    fn sizes(&self) -> (impl Iterator<Item = Arg>, usize) {
        (self.columns.into_iter().map(int), self.rows * self.width())
    }

    /// Copies `weights` to it.
    fn join(&self, to: &mut Lowering, weights: [Span; 3]) {
        let (columns, len) = self.sizes();
        let mut args: Vec<Arg> = weights.map(Arg::from).to_vec();
        args.push(self.place.into());
        args.extend(columns);
        let traffic = Traffic::default().columns(number_bytes(self.format) * len);
        let traffic = weights.into_iter().fold(traffic, Traffic::reads);
        to.for_each("join_columns", len, traffic, args);
    }

    /// Copies from it to `gradients`.
    fn split(&self, to: &mut Lowering, gradients: [Span; 3]) {
        let (columns, len) = self.sizes();
        let mut args: Vec<Arg> = vec![self.place.into()];
        args.extend(gradients.map(Arg::from));
        args.extend(columns);
        let traffic = Traffic::default().columns(number_bytes(self.format) * len);
        let traffic = gradients.into_iter().fold(traffic, Traffic::writes);
        to.for_each("split_columns", len, traffic, args);
    }
}

pub(super) fn forward(to: &mut Lowering, input: Tensor, convs: [Pointwise; 3]) {
    let output = Tensor::joined(convs.map(|conv| conv.output));
    let (ci, co) = (input.shape.c, output.shape.c);
    let weights = convs.map(|conv| conv.weight);
    let packed = Packed::new(to, weights[0].buffer.format, weights, ci);
    packed.join(to, weights);
    to.product([input.rows(), co, ci], Rows::of(input), packed.matrix(), 0.0, Rows::of(output));
    convs.into_iter().for_each(|conv| conv2d::finish(to, conv.epilogue, conv.output));
}

pub(super) fn grad_input(to: &mut Lowering, convs: [PointwiseGrad; 3], grad_input: Tensor) {
    let grad_output = Tensor::joined(convs.map(|conv| conv.grad_output));
    let (ci, co) = (grad_input.shape.c, grad_output.shape.c);
    let weights = convs.map(|conv| conv.weight);
    let packed = Packed::new(to, weights[0].buffer.format, weights, ci);
    packed.join(to, weights);
    let weight = packed.matrix().transposed();
    let (from, into) = (Rows::of(grad_output), Rows::of(grad_input));
    to.product([grad_input.rows(), ci, co], from, weight, 0.0, into);
}

pub(super) fn grad_weight(to: &mut Lowering, input: Tensor, convs: [PointwiseGrad; 3]) {
    let grad_output = Tensor::joined(convs.map(|conv| conv.grad_output));
    let (ci, co) = (input.shape.c, grad_output.shape.c);
    let weights = convs.map(|conv| conv.weight);
    let packed = Packed::new(to, Format::Full, weights, ci);
    let (from, by) = (Rows::of(input).transposed(), Rows::of(grad_output));
    to.product([ci, co, input.rows()], from, by, 0.0, packed.matrix());
    packed.split(to, weights);
}
