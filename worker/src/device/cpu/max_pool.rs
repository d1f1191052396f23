//! The largest of each window, row by row of the output; backward row by row of the input, each
//! pixel gathering from the windows that it lies in.

use std::ops::{Range, RangeInclusive};

use pulp::WithSimd;
use rayon::prelude::*;

use super::Team;
use super::simd::{Pair, load, store};
use crate::device::memory::{Memory, View};
use crate::device::{Tensor, Update, Window};

pub(super) fn forward(
    memory: &mut Memory<f32>,
    team: &Team,
    window: Window,
    input: Tensor,
    output: Tensor,
    places: Option<Tensor>,
) {
    memory.write_both(output, places, |memory, out, to| {
        let input = memory.view(input);
        let places_ld = places.map_or(1, |places| places.ld);
        let mut to = to.map(|to| to.chunks_mut(output.shape.w * places_ld));
        let rows = out.chunks_mut(output.shape.w * output.ld);
        let rows: Vec<_> = rows.map(|out| (out, to.as_mut().and_then(Iterator::next))).collect();
        team.pool.install(|| {
            rows.into_par_iter().enumerate().for_each(|(row, (out, to))| {
                let places = to.map(|to| (to, places_ld));
                team.simd.product(PoolRow { window, input, output, row, out, places });
            });
        });
    });
}

/// One row of output: row % h of image row / h.
struct PoolRow<'a> {
    window: Window,
    input: View<'a, f32>,
    output: Tensor,
    row: usize,
    out: &'a mut [f32],
    /// Where the places go, and from one pixel to the next.
    places: Option<(&'a mut [f32], usize)>,
}

impl WithSimd for PoolRow<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(mut self, simd: S) {
        let Tensor { shape, ld, .. } = self.input.tensor;
        let Window { kernel_size, stride } = self.window;
        let (n, oy) = (self.row / self.output.shape.h, self.row % self.output.shape.h);
        let (rows, top) = inside(self.window, oy, shape.h);
        for ox in 0..self.output.shape.w {
            let (cols, left) = inside(self.window, ox, shape.w);
            let (y, x) = (oy * stride + rows.start - top, ox * stride + cols.start - left);
            let found = Found {
                pixels: &self.input.data[self.input.tensor.pixel([n, y, x])..],
                size: [rows.len(), cols.len()],
                row_len: shape.w * ld,
                ld,
                first_place: rows.start * kernel_size + cols.start,
                kernel_size,
            };
            for first in (0..shape.c).step_by(2 * S::F32_LANES) {
                let c = first..shape.c.min(first + 2 * S::F32_LANES);
                let (largest, places) = found.largest(simd, c.clone());
                store(simd, &mut self.out[ox * self.output.ld..][c.clone()], largest);
                if let Some((to, ld)) = &mut self.places {
                    store(simd, &mut to[ox * *ld..][c], places);
                }
            }
        }
    }
}

/// The part of a window that lies inside the image.
struct Found<'a> {
    /// From its first pixel on.
    pixels: &'a [f32],
    /// Rows and columns.
    size: [usize; 2],
    /// From a row of the image to the next.
    row_len: usize,
    ld: usize,
    first_place: usize,
    kernel_size: usize,
}

impl Found<'_> {
    /// The largest numbers of channels `c`, and their places.
    #[inline(always)]
    fn largest<S: pulp::Simd>(&self, simd: S, c: Range<usize>) -> (Pair<S>, Pair<S>) {
        let mut largest = load(simd, &self.pixels[c.clone()]);
        let mut places = [simd.splat_f32s(self.first_place as f32); 2];
        for row in 0..self.size[0] {
            for col in 0..self.size[1] {
                let pixel = &self.pixels[row * self.row_len + col * self.ld..];
                let values = load(simd, &pixel[c.clone()]);
                let place = self.first_place + row * self.kernel_size + col;
                let place = simd.splat_f32s(place as f32);
                for i in 0..2 {
                    let larger = simd.greater_than_f32s(values[i], largest[i]);
                    largest[i] = simd.select_f32s(larger, values[i], largest[i]);
                    places[i] = simd.select_f32s(larger, place, places[i]);
                }
            }
        }
        (largest, places)
    }
}

/// The rows (or columns) of window number `at` that lie within `len` pixels, and the padding.
fn inside(window: Window, at: usize, len: usize) -> (Range<usize>, usize) {
    let padding = window.padding(len);
    let first = at * window.stride;
    let start = padding.saturating_sub(first);
    (start..window.kernel_size.min(len + padding - first), padding)
}

pub(super) fn backward(
    memory: &mut Memory<f32>,
    team: &Team,
    window: Window,
    places: Tensor,
    grad_output: Tensor,
    update: Update,
    grad_input: Tensor,
) {
    memory.write(grad_input, |memory, out| {
        let gather = Gather {
            window,
            places: memory.view(places),
            grad_output: memory.view(grad_output),
            update,
            grad_input,
        };
        let rows = out.par_chunks_mut(grad_input.shape.w * grad_input.ld).enumerate();
        team.pool.install(|| {
            rows.for_each(|(row, out)| {
                team.simd.run(
                    #[inline(always)]
                    || gather.row(row, out),
                )
            });
        });
    });
}

struct Gather<'a> {
    window: Window,
    places: View<'a, f32>,
    grad_output: View<'a, f32>,
    update: Update,
    grad_input: Tensor,
}

impl Gather<'_> {
    /// Row row % h of image row / h.
    #[inline(always)]
    fn row(&self, row: usize, out: &mut [f32]) {
        let Window { kernel_size, stride } = self.window;
        let (shape, made) = (self.grad_input.shape, self.grad_output.tensor.shape);
        let (n, y) = (row / shape.h, row % shape.h);
        let (top, left) = (self.window.padding(shape.h), self.window.padding(shape.w));
        for (x, out) in out.chunks_mut(self.grad_input.ld).enumerate() {
            let out = &mut out[..shape.c];
            if self.update == Update::Overwrite {
                out.fill(0.0);
            }
            for oy in covering(self.window, y + top, made.h) {
                for ox in covering(self.window, x + left, made.w) {
                    let place = (y + top - oy * stride) * kernel_size + x + left - ox * stride;
                    let grads = self.grad_output.pixel(n, oy, ox);
                    let places = self.places.pixel(n, oy, ox);
                    add_where(place as f32, out, grads, places);
                }
            }
        }
    }
}

/// Adds each gradient whose place is `place`.
#[inline(always)]
fn add_where(place: f32, out: &mut [f32], grads: &[f32], places: &[f32]) {
    for ((out, grad), found) in out.iter_mut().zip(grads).zip(places) {
        *out += if *found == place { *grad } else { 0.0 };
    }
}

/// The windows, of `count` along an edge, that hold the padded index `at`.
fn covering(window: Window, at: usize, count: usize) -> RangeInclusive<usize> {
    let Window { kernel_size, stride } = window;
    let first = (at + 1).saturating_sub(kernel_size).div_ceil(stride);
    first..=(at / stride).min(count - 1)
}
