//! The largest of each window, row by row of the output; backward row by row of the input, each
//! pixel gathering from the windows that it lies in.

use std::ops::RangeInclusive;

use rayon::prelude::*;

use super::Team;
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
        let pool = Pool { window, input: memory.view(input), output };
        let places_len = places.map_or(1, |places| places.shape.w * places.ld);
        let mut to = to.map(|to| to.chunks_mut(places_len));
        let rows = out.chunks_mut(output.shape.w * output.ld);
        let rows: Vec<_> = rows.map(|out| (out, to.as_mut().and_then(Iterator::next))).collect();
        let ld = places.map_or(1, |places| places.ld);
        team.pool.install(|| {
            rows.into_par_iter().enumerate().for_each(|(row, (out, to))| {
                team.simd.run(|| match to {
                    Some(to) => pool.row_with_places(row, out, to, ld),
                    None => pool.row(row, out),
                });
            });
        });
    });
}

struct Pool<'a> {
    window: Window,
    input: View<'a, f32>,
    output: Tensor,
}

impl<'a> Pool<'a> {
    /// The pixels of the window of output pixel (row / h, row % h, ox), each with its place.
    #[inline(always)]
    fn window(&self, row: usize, ox: usize) -> impl Iterator<Item = (&'a [f32], usize)> + use<'a> {
        let Window { kernel_size, stride } = self.window;
        let (input, shape) = (self.input, self.input.tensor.shape);
        let (n, oy) = (row / self.output.shape.h, row % self.output.shape.h);
        let (top, left) = (self.window.padding(shape.h), self.window.padding(shape.w));
        let inside = move |first: usize, padding: usize, len: usize| {
            (0..kernel_size).filter(move |k| (padding..padding + len).contains(&(first + k)))
        };
        inside(oy * stride, top, shape.h).flat_map(move |ky| {
            inside(ox * stride, left, shape.w).map(move |kx| {
                let (y, x) = (oy * stride + ky - top, ox * stride + kx - left);
                (input.pixel(n, y, x), ky * kernel_size + kx)
            })
        })
    }

    #[inline(always)]
    fn row(&self, row: usize, out: &mut [f32]) {
        for (ox, out) in out.chunks_mut(self.output.ld).enumerate() {
            let out = &mut out[..self.output.shape.c];
            let mut window = self.window(row, ox);
            out.copy_from_slice(window.next().expect("a window holds a pixel").0);
            for (pixel, _) in window {
                for (out, value) in out.iter_mut().zip(pixel) {
                    *out = if *value > *out { *value } else { *out };
                }
            }
        }
    }

    #[inline(always)]
    fn row_with_places(&self, row: usize, out: &mut [f32], places: &mut [f32], places_ld: usize) {
        let c = self.output.shape.c;
        let pixels = out.chunks_mut(self.output.ld).zip(places.chunks_mut(places_ld));
        for (ox, (out, places)) in pixels.enumerate() {
            let (out, places) = (&mut out[..c], &mut places[..c]);
            let mut window = self.window(row, ox);
            let (first, place) = window.next().expect("a window holds a pixel");
            out.copy_from_slice(first);
            places.fill(place as f32);
            for (pixel, place) in window {
                let (pixel, place) = (&pixel[..c], place as f32);
                for i in 0..c {
                    let larger = pixel[i] > out[i];
                    out[i] = if larger { pixel[i] } else { out[i] };
                    places[i] = if larger { place } else { places[i] };
                }
            }
        }
    }
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
            rows.for_each(|(row, out)| team.simd.run(|| gather.row(row, out)));
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
