//! Matrix product.

use super::lower::{Lowering, Rows};
use crate::device::{Gemm, Span};

pub(super) fn multiply(to: &mut Lowering, gemm: Gemm, a: Span, b: Span, c: Span) {
    let Gemm { m, n, k, transpose_a, transpose_b } = gemm;
    let rows = |span: Span, rows: usize, columns: usize, transposed: bool| match transposed {
        true => Rows::new(span, rows).transposed(),
        false => Rows::new(span, columns),
    };
    let (a, b) = (rows(a, m, k, transpose_a), rows(b, k, n, transpose_b));
    to.product([m, n, k], a, b, 0.0, Rows::new(c, n));
}
