//! The gradient of the weight: for every tap, input numbers times output gradients, summed over all
//! pixels of all images.
//!
//! The images are cut into a fixed number of shares. Each share sums strip by strip, a strip being
//! one matrix product, and the shares are added in order.

use std::ops::Range;

use rayon::prelude::*;

use super::{Windows, windows};
use crate::device::cpu::Team;
use crate::device::cpu::panels::Panels;
use crate::device::cpu::scratch::{self, Scratch, cut};
use crate::device::cpu::simd::{PackedProduct, Simd, TILE_ROWS};
use crate::device::memory::{Memory, View};
use crate::device::{Span, Tensor, Window};

/// Shares of a batch: as many threads can work on one gradient.
const SHARES: usize = 16;
/// About how many pixels a strip has. A constant, because sums are made strip by strip.
const STRIP_PIXELS: usize = 256;
/// Tiles packed at a time, so that they stay in the cache while all panels pass by.
const TILES: usize = 8;

pub(in crate::device::cpu) fn grad_weight(
    memory: &mut Memory<f32>,
    team: &mut Team,
    window: Window,
    input: Tensor,
    grad_output: Tensor,
    grad_weight: Span,
) {
    let simd = team.simd;
    let sums = Sums::new(window, input.shape.c, grad_output.shape.c, simd.panel_width());
    let shares = SHARES.min(input.n);
    let partials = cut(&mut team.partials, shares * sums.len());
    memory.write_span(grad_weight, |memory, out| {
        let (input, grad_output) = (memory.view(input), memory.view(grad_output));
        team.pool.install(|| {
            let images = |share: usize| {
                share * input.tensor.n / shares..(share + 1) * input.tensor.n / shares
            };
            partials.par_chunks_mut(sums.len()).enumerate().for_each(|(share, partial)| {
                partial.fill(0.0);
                scratch::with(|scratch| {
                    for n in images(share) {
                        add_image(simd, window, sums, (input, grad_output, n), partial, scratch);
                    }
                });
            });
            let rows = out.par_chunks_mut(sums.columns).enumerate();
            rows.for_each(|(row, out)| sums.gather(partials, row, out));
        });
    });
}

/// How a gradient (k, k, ci, co) is kept while it is summed: as panels of co, each with the rows
/// (ky, kx, ci), those of every ky padded to whole tiles.
#[derive(Clone, Copy)]
struct Sums {
    /// Values of ky.
    kernel_size: usize,
    /// kx and ci.
    run: usize,
    columns: usize,
    width: usize,
}

impl Sums {
    fn new(window: Window, ci: usize, co: usize, width: usize) -> Self {
        let kernel_size = window.kernel_size;
        Self { kernel_size, run: kernel_size * ci, columns: co, width }
    }

    /// Rows of a ky.
    fn run_rows(&self) -> usize {
        self.run.next_multiple_of(TILE_ROWS)
    }

    fn rows(&self) -> usize {
        self.kernel_size * self.run_rows()
    }

    fn len(&self) -> usize {
        self.rows() * self.columns.next_multiple_of(self.width)
    }

    /// Adds up row `row` (ky, kx, ci) of all `partials`, in order, into `out` (co).
    fn gather(&self, partials: &[f32], row: usize, out: &mut [f32]) {
        let row = row / self.run * self.run_rows() + row % self.run;
        out.fill(0.0);
        for partial in partials.chunks(self.len()) {
            let panels = partial.chunks(self.rows() * self.width);
            for (out, panel) in out.chunks_mut(self.width).zip(panels) {
                let values = &panel[row * self.width..];
                out.iter_mut().zip(values).for_each(|(out, value)| *out += value);
            }
        }
    }
}

/// Adds the gradient of image `n` to `partial`, strip by strip.
fn add_image(
    simd: Simd,
    window: Window,
    sums: Sums,
    (input, grad_output, n): (View<'_, f32>, View<'_, f32>, usize),
    partial: &mut [f32],
    scratch: &mut Scratch,
) {
    let (h, cols) = (grad_output.tensor.shape.h, grad_output.tensor.shape.w);
    let strip = (STRIP_PIXELS / cols).clamp(1, h);
    for first in (0..h).step_by(strip) {
        let rows = first..(first + strip).min(h);
        let depth = rows.len() * cols;
        let layout = Panels { depth, columns: sums.columns, width: sums.width };
        let panels = cut(&mut scratch.panels, layout.len());
        let ld = grad_output.tensor.ld;
        let grads = &grad_output.data[(n * h + rows.start) * cols * ld..];
        layout.pack_rows(panels, |pixel| &grads[pixel * ld..]);
        let windows = windows(window, input, n, rows.clone(), cols, &mut scratch.strip);
        add_strip(simd, sums, &windows, (rows, cols), panels, partial, &mut scratch.tiles);
    }
}

/// Adds windows^T * panels to `partial`, a few tiles at a time.
fn add_strip(
    simd: Simd,
    sums: Sums,
    windows: &Windows<'_>,
    (rows, cols): (Range<usize>, usize),
    panels: &[f32],
    partial: &mut [f32],
    tiles: &mut Vec<f32>,
) {
    let depth = rows.len() * cols;
    for ky in 0..sums.kernel_size {
        for first in (0..sums.run).step_by(TILES * TILE_ROWS) {
            let count = (sums.run - first).min(TILES * TILE_ROWS);
            let tiles = cut(tiles, count.next_multiple_of(TILE_ROWS) * depth);
            let start = ky * windows.runs.step + first;
            for row in 0..rows.len() {
                for col in 0..cols {
                    let at = windows.steps.at(row, col) + start;
                    let pixel = row * cols + col;
                    spread(&windows.source[at..at + count], pixel, depth, tiles);
                }
            }
            let first_row = ky * sums.run_rows() + first;
            let (target, target_rows) = (&mut *partial, sums.rows());
            simd.product(PackedProduct { depth, tiles, panels, target, target_rows, first_row });
        }
    }
}

/// Writes the numbers of one pixel to their tiles.
#[inline(always)]
fn spread(values: &[f32], pixel: usize, depth: usize, tiles: &mut [f32]) {
    let tiles = tiles.chunks_exact_mut(depth * TILE_ROWS);
    for (tile, values) in tiles.zip(values.chunks(TILE_ROWS)) {
        let out = &mut tile[pixel * TILE_ROWS..][..TILE_ROWS];
        match <&[f32; TILE_ROWS]>::try_from(values) {
            Ok(values) => out.copy_from_slice(values),
            Err(_) => {
                out.fill(0.0);
                out[..values.len()].copy_from_slice(values);
            }
        }
    }
}
