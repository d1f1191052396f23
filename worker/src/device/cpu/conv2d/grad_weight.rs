//! The gradient of the weight: for every number of a window, times the output gradients, summed over
//! all pixels of all images.
//!
//! The images are cut into a fixed number of shares. Each share sums strip by strip, a strip being
//! the product grad_output^T * windows, and the shares are added in order.

use rayon::prelude::*;

use super::{Windows, windows};
use crate::device::cpu::Team;
use crate::device::cpu::panels::{pack_tile_columns, tiles_len};
use crate::device::cpu::scratch::{self, Scratch, cut};
use crate::device::cpu::simd::{PackWindows, PackedProduct, Simd, TILE_ROWS};
use crate::device::memory::{Memory, View};
use crate::device::{Span, Tensor, Window};

/// Shares of a batch: as many threads can work on one gradient.
const SHARES: usize = 16;
/// About how many pixels a strip has. A constant, because sums are made strip by strip.
const STRIP_PIXELS: usize = 256;
/// Panels packed at a time.
const PANELS: usize = 8;

pub(in crate::device::cpu) fn grad_weight(
    memory: &mut Memory<f32>,
    team: &mut Team,
    window: Window,
    input: Tensor,
    grad_output: Tensor,
    grad_weight: Span,
) {
    let shares = SHARES.min(input.n);
    let depth = window.kernel_size * window.kernel_size * input.shape.c;
    let sums = Sums { depth, co: grad_output.shape.c, width: team.simd.panel_width() };
    let partials = cut(&mut team.partials, shares * sums.len());
    memory.write_span(grad_weight, |memory, out| {
        let gradient = Gradient {
            simd: team.simd,
            window,
            input: memory.view(input),
            grad_output: memory.view(grad_output),
            sums,
        };
        team.pool.install(|| {
            partials.par_chunks_mut(sums.len()).enumerate().for_each(|(share, partial)| {
                partial.fill(0.0);
                let images = share * input.n / shares..(share + 1) * input.n / shares;
                scratch::with(|scratch| {
                    images.for_each(|n| gradient.add_image(n, partial, scratch));
                });
            });
            let panels = out.par_chunks_mut(sums.width * sums.co).enumerate();
            panels.for_each(|(panel, out)| {
                scratch::with(|scratch| {
                    let memory = &mut scratch.panels;
                    team.simd.run(
                        #[inline(always)]
                        || sums.gather(partials, panel, memory, out),
                    );
                });
            });
        });
    });
}

/// How a gradient (depth, co) is kept while it is summed: transposed, in panels of a few columns of
/// the depth, each with a row for every co, padded to whole tiles.
#[derive(Clone, Copy)]
struct Sums {
    /// Numbers of a window.
    depth: usize,
    co: usize,
    /// Columns of a panel.
    width: usize,
}

impl Sums {
    /// Numbers of a panel.
    fn panel_len(&self) -> usize {
        self.co.next_multiple_of(TILE_ROWS) * self.width
    }

    fn len(&self) -> usize {
        self.depth.div_ceil(self.width) * self.panel_len()
    }

    /// Adds up panel `panel` of all `partials`, in order, and transposes it to `out`, its rows (co)
    /// of the gradient.
    #[inline(always)]
    fn gather(&self, partials: &[f32], panel: usize, memory: &mut Vec<f32>, out: &mut [f32]) {
        let len = self.panel_len();
        let sums = cut(memory, len);
        sums.fill(0.0);
        for partial in partials.chunks(self.len()) {
            let partial = &partial[panel * len..][..len];
            sums.iter_mut().zip(partial).for_each(|(sum, value)| *sum += value);
        }
        for (column, out) in out.chunks_mut(self.co).enumerate() {
            let sums = sums[column..].iter().step_by(self.width);
            out.iter_mut().zip(sums).for_each(|(out, sum)| *out = *sum);
        }
    }
}

struct Gradient<'a> {
    simd: Simd,
    window: Window,
    input: View<'a, f32>,
    grad_output: View<'a, f32>,
    sums: Sums,
}

impl Gradient<'_> {
    /// Adds the gradient of image `n` to `partial`, strip by strip.
    fn add_image(&self, n: usize, partial: &mut [f32], scratch: &mut Scratch) {
        let Tensor { shape, ld, .. } = self.grad_output.tensor;
        let strip = (STRIP_PIXELS / shape.w).clamp(1, shape.h);
        for first in (0..shape.h).step_by(strip) {
            let rows = first..(first + strip).min(shape.h);
            let pixels = rows.len() * shape.w;
            let tiles = cut(&mut scratch.tiles, tiles_len(shape.c, pixels));
            let grads = &self.grad_output.data[(n * shape.h + rows.start) * shape.w * ld..];
            pack_tile_columns(tiles, (shape.c, pixels), |pixel| &grads[pixel * ld..]);
            let count = rows.len();
            let windows = windows(self.window, self.input, n, rows, shape.w, &mut scratch.strip);
            self.add_strip(&windows, (count, shape.w), tiles, partial, &mut scratch.panels);
        }
    }

    /// Adds tiles * windows to `partial`, a few panels at a time, so that they stay in the cache.
    fn add_strip(
        &self,
        windows: &Windows<'_>,
        (rows, cols): (usize, usize),
        tiles: &[f32],
        partial: &mut [f32],
        panels: &mut Vec<f32>,
    ) {
        let Sums { depth, width, .. } = self.sums;
        let pixels = rows * cols;
        let targets = partial.chunks_mut(PANELS * self.sums.panel_len());
        for (number, target) in targets.enumerate() {
            let first = number * PANELS * width;
            let columns = first..depth.min(first + PANELS * width);
            let panels = cut(panels, columns.len().next_multiple_of(width) * pixels);
            self.simd.product(PackWindows {
                source: windows.source,
                steps: windows.steps,
                size: (rows, cols),
                pieces: &windows.pieces(columns, width, pixels),
                panels,
            });
            self.simd.product(PackedProduct {
                depth: pixels,
                tiles,
                panels,
                target,
                target_rows: self.sums.panel_len() / width,
                first_row: 0,
            });
        }
    }
}
