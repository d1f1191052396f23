//! Rows of one image with zeros around them, so that every window lies inside.

use crate::device::memory::View;

/// Which pixels of an image a strip holds: those from (top, left) on, negative ones and those
/// beyond the image being zeros.
#[derive(Clone, Copy, Debug)]
pub(super) struct Strip {
    pub(super) top: isize,
    pub(super) left: isize,
    pub(super) rows: usize,
    pub(super) cols: usize,
}

impl Strip {
    /// Numbers of the strip of an image with `c` channels.
    pub(super) fn len(&self, c: usize) -> usize {
        self.rows * self.cols * c
    }

    /// Copies the strip of image `n` to `out` (rows, cols, c).
    pub(super) fn copy(&self, input: View<'_, f32>, n: usize, out: &mut [f32]) {
        let shape = input.tensor.shape;
        let before = self.left.min(0).unsigned_abs().min(self.cols);
        let first = self.left.max(0) as usize;
        let inside = shape.w.saturating_sub(first).min(self.cols - before);
        for (row, out) in out.chunks_exact_mut(self.cols * shape.c).enumerate() {
            let y = self.top + row as isize;
            if y < 0 || y >= shape.h as isize || inside == 0 {
                out.fill(0.0);
                continue;
            }
            let (padding, out) = out.split_at_mut(before * shape.c);
            padding.fill(0.0);
            let (pixels, padding) = out.split_at_mut(inside * shape.c);
            padding.fill(0.0);
            copy_pixels(input, [n, y as usize, first], pixels);
        }
    }
}

/// Copies the pixels of a row from (n, y, x) on to `out`, as many as it holds.
fn copy_pixels(input: View<'_, f32>, [n, y, x]: [usize; 3], out: &mut [f32]) {
    let (shape, ld) = (input.tensor.shape, input.tensor.ld);
    let from = &input.data[input.tensor.pixel([n, y, x])..];
    if ld == shape.c {
        out.copy_from_slice(&from[..out.len()]);
    } else {
        for (out, from) in out.chunks_exact_mut(shape.c).zip(from.chunks(ld)) {
            out.copy_from_slice(&from[..shape.c]);
        }
    }
}
