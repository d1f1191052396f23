//! Convolutions of kernel size 1 that read the same tensor: one product. Their weights are packed side by
//! side in the workspace for it.

use super::cast;
use super::conv2d;
use super::launch::{Place, Traffic, number_bytes};
use super::lower::{Lowering, Rows};
use crate::device::{Format, Pointwise, PointwiseGrad, Span, Tensor};

/// A matrix (ci, co of all) in the workspace.
struct Packed {
    place: usize,
    format: Format,
    /// Its rows and columns.
    size: [usize; 2],
}

impl Packed {
    fn new(to: &mut Lowering, format: Format, size: [usize; 2]) -> Self {
        let place = to.scratch(number_bytes(format) * size[0] * size[1]);
        let Place::Workspace { offset } = place else { unreachable!("that is where scratch is") };
        Self { place: offset, format, size }
    }

    fn rows(&self) -> Rows {
        Rows::columns(self.at(0), self.format, self.size[1])
    }

    /// From column `column` on.
    fn at(&self, column: usize) -> Place {
        Place::Workspace { offset: self.place + number_bytes(self.format) * column }
    }

    /// Calls `visit` with each of `spans` and where its columns are, with the sizes of both.
    fn each(&self, spans: [Span; 3], mut visit: impl FnMut(Span, Place, [usize; 3])) {
        let mut column = 0;
        for span in spans {
            let columns = span.len / self.size[0];
            visit(span, self.at(column), [self.size[0], columns, self.size[1]]);
            column += columns;
        }
        assert_eq!(column, self.size[1], "the columns are those of all");
    }

    /// Copies `weights` to it.
    fn pack(&self, to: &mut Lowering, weights: [Span; 3]) {
        self.each(weights, |weight, at, [rows, columns, ld]| {
            let kernel = cast::rows(
                (weight.buffer.format, weight.into(), columns),
                (self.format, at.into(), ld),
                [rows, columns],
            );
            let bytes = number_bytes(self.format) * weight.len;
            to.push(kernel, Traffic::default().reads(weight).columns(bytes));
        });
    }

    /// Copies from it to `gradients`.
    fn unpack(&self, to: &mut Lowering, gradients: [Span; 3]) {
        self.each(gradients, |gradient, at, [rows, columns, ld]| {
            let kernel = cast::rows(
                (self.format, at.into(), ld),
                (gradient.buffer.format, gradient.into(), columns),
                [rows, columns],
            );
            let bytes = number_bytes(self.format) * gradient.len;
            to.push(kernel, Traffic::default().writes(gradient).columns(bytes));
        });
    }
}

pub(super) fn forward(to: &mut Lowering, input: Tensor, convs: [Pointwise; 3]) {
    let output = Tensor::joined(convs.map(|conv| conv.output));
    let (ci, co) = (input.shape.c, output.shape.c);
    let weights = convs.map(|conv| conv.weight);
    let packed = Packed::new(to, weights[0].buffer.format, [ci, co]);
    packed.pack(to, weights);
    to.product([input.rows(), co, ci], Rows::of(input), packed.rows(), 0.0, Rows::of(output));
    convs.into_iter().for_each(|conv| conv2d::finish(to, conv.epilogue, conv.output));
}

pub(super) fn grad_input(to: &mut Lowering, convs: [PointwiseGrad; 3], grad_input: Tensor) {
    let grad_output = Tensor::joined(convs.map(|conv| conv.grad_output));
    let (ci, co) = (grad_input.shape.c, grad_output.shape.c);
    let weights = convs.map(|conv| conv.weight);
    let packed = Packed::new(to, weights[0].buffer.format, [ci, co]);
    packed.pack(to, weights);
    let weight = packed.rows().transposed();
    let (from, into) = (Rows::of(grad_output), Rows::of(grad_input));
    to.product([grad_input.rows(), ci, co], from, weight, 0.0, into);
}

pub(super) fn grad_weight(to: &mut Lowering, input: Tensor, convs: [PointwiseGrad; 3]) {
    let grad_output = Tensor::joined(convs.map(|conv| conv.grad_output));
    let (ci, co) = (input.shape.c, grad_output.shape.c);
    let packed = Packed::new(to, Format::Full, [ci, co]);
    let (from, by) = (Rows::of(input).transposed(), Rows::of(grad_output));
    to.product([ci, co, input.rows()], from, by, 0.0, packed.rows());
    packed.unpack(to, convs.map(|conv| conv.weight));
}
