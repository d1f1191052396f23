//! Matrix product.

use crate::device::memory::Memory;
use crate::device::{Float, Gemm, Span};

pub(in crate::device) fn multiply<T: Float>(
    memory: &mut Memory<T>,
    gemm: Gemm,
    a: Span,
    b: Span,
    c: Span,
) {
    let Gemm { m, n, k, transpose_a, transpose_b } = gemm;
    memory.write_span(c, |memory, c| {
        let (a, b) = (memory.span(a), memory.span(b));
        for (i, row) in c.chunks_mut(n).enumerate() {
            row.fill(T::ZERO);
            for p in 0..k {
                let a = if transpose_a { a[p * m + i] } else { a[i * k + p] };
                for (j, c) in row.iter_mut().enumerate() {
                    *c += a * if transpose_b { b[j * k + p] } else { b[p * n + j] };
                }
            }
        }
    });
}
