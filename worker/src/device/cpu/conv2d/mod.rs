//! Convolution as matrix products that read their windows where they lie.
//!
//! No im2col matrix is made: in NHWC order a row of a window is one run of consecutive numbers, so
//! the inner loop reads it from a strip of the image, zeros around it, that stays in the cache.

mod forward;
mod grad_input;
mod grad_weight;

use std::ops::Range;

pub(super) use forward::forward;
pub(super) use grad_input::grad_input;
pub(super) use grad_weight::grad_weight;

use super::scratch::cut;
use super::simd::{Runs, Steps};
use super::strip::Strip;
use crate::device::memory::View;
use crate::device::{Tensor, Window};

/// The windows of some rows of an output, in whatever holds their numbers.
struct Windows<'a> {
    source: &'a [f32],
    /// What one window covers.
    runs: Runs,
    /// Where the window of each output pixel begins.
    steps: Steps,
}

/// The windows of output rows `rows`, each of `cols` pixels, of image `n`. Single pixels are read
/// from the input itself, larger windows from a strip in `memory`.
fn windows<'a>(
    window: Window,
    input: View<'a, f32>,
    n: usize,
    rows: Range<usize>,
    cols: usize,
    memory: &'a mut Vec<f32>,
) -> Windows<'a> {
    let Window { kernel_size, stride } = window;
    let Tensor { shape, ld, .. } = input.tensor;
    let c = shape.c;
    if kernel_size == 1 && stride == 1 {
        let source = &input.data[(n * shape.h + rows.start) * shape.w * ld..];
        let runs = Runs { count: 1, len: c, step: 0 };
        return Windows { source, runs, steps: Steps { start: 0, row: shape.w * ld, col: ld } };
    }
    let strip = Strip {
        top: (rows.start * stride) as isize - window.padding(shape.h) as isize,
        left: -(window.padding(shape.w) as isize),
        rows: (rows.len() - 1) * stride + kernel_size,
        cols: (cols - 1) * stride + kernel_size,
    };
    let source = cut(memory, strip.len(c));
    strip.copy(input, n, source);
    let row = strip.cols * c;
    Windows {
        source,
        runs: Runs { count: kernel_size, len: kernel_size * c, step: row },
        steps: Steps { start: 0, row: stride * row, col: stride * c },
    }
}

/// The numbers of one strip of an output, with where it is.
struct Piece<'a> {
    /// Image.
    n: usize,
    rows: Range<usize>,
    /// From the strip's first pixel on.
    values: &'a mut [f32],
}

/// Cuts the numbers of `tensor` into strips of about `pixels` pixels, at least one row each.
fn pieces(values: &mut [f32], tensor: Tensor, pixels: usize) -> Vec<Piece<'_>> {
    let (h, row_len) = (tensor.shape.h, tensor.shape.w * tensor.ld);
    let strip = (pixels / tensor.shape.w).clamp(1, h);
    let images = values.chunks_mut(h * row_len).enumerate();
    let pieces = images.flat_map(|(n, image)| {
        image.chunks_mut(strip * row_len).enumerate().map(move |(number, values)| {
            let first = number * strip;
            Piece { n, rows: first..(first + strip).min(h), values }
        })
    });
    pieces.collect()
}
