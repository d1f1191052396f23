//! The gradient of the input.
//!
//! With stride s, input row y gets from output row o through weight row ky where
//! y + padding = o * s + ky. All input rows with one remainder of (y + padding) / s, a phase, share
//! their ky: those with that remainder. So each phase, of rows and of columns, is a convolution of
//! its own with stride 1 over grad_output, with some of the weights in reverse order, whose result
//! is spread over every s-th row and column. No multiplication by zero, no scattered additions.

use std::ops::Range;

use rayon::prelude::*;

use super::{Piece, pieces};
use crate::device::cpu::Team;
use crate::device::cpu::panels::Panels;
use crate::device::cpu::scratch::{self, cut};
use crate::device::cpu::simd::{Grid, Runs, Simd, Start, Steps, StripProduct};
use crate::device::cpu::strip::Strip;
use crate::device::memory::{Memory, View, rows_mut};
use crate::device::{Span, Tensor, Update, Window};

/// About how many pixels of grad_input a strip has.
const STRIP_PIXELS: usize = 400;

pub(in crate::device::cpu) fn grad_input(
    memory: &mut Memory<f32>,
    team: &mut Team,
    window: Window,
    grad_output: Tensor,
    weight: Span,
    update: Update,
    grad_input: Tensor,
) {
    let simd = team.simd;
    let phases = phases(window, grad_output, grad_input, simd.panel_width());
    let len = phases.iter().map(|phase| phase.layout.len()).sum();
    let packed = cut(&mut team.panels, len);
    memory.write(grad_input, |memory, out| {
        pack(&phases, window, memory.span(weight), packed);
        let convolution = Convolution {
            simd,
            window,
            phases: &phases,
            panels: packed,
            grad_output: memory.view(grad_output),
            update,
            grad_input,
        };
        let pieces = pieces(out, grad_input, STRIP_PIXELS);
        team.pool.install(|| pieces.into_par_iter().for_each(|piece| convolution.run(piece)));
    });
}

/// The pixels of grad_input with one remainder of rows and one of columns.
struct Phase {
    rows: Axis,
    cols: Axis,
    /// Of its weights: (rows.taps * cols.taps * co, ci).
    layout: Panels,
}

/// One remainder along one axis.
#[derive(Clone, Copy)]
struct Axis {
    remainder: usize,
    stride: usize,
    padding: usize,
    /// Weights along this axis that take part.
    taps: usize,
}

impl Axis {
    fn new(window: Window, len: usize, remainder: usize) -> Self {
        let Window { kernel_size, stride } = window;
        let taps = kernel_size.saturating_sub(remainder).div_ceil(stride);
        Self { remainder, stride, padding: window.padding(len), taps }
    }

    /// The first index of `range` with this remainder, and how many there are.
    fn of(&self, range: &Range<usize>) -> (usize, usize) {
        let ahead = self.remainder + self.stride - (range.start + self.padding) % self.stride;
        let first = range.start + ahead % self.stride;
        (first, range.end.saturating_sub(first).div_ceil(self.stride))
    }

    /// The first index of grad_output that input index `first` gets anything from.
    fn source(&self, first: usize) -> isize {
        ((first + self.padding - self.remainder) / self.stride) as isize - self.taps as isize + 1
    }

    /// The weight that goes with the number `tap` places after that one.
    fn weight(&self, tap: usize) -> usize {
        self.remainder + self.stride * (self.taps - 1 - tap)
    }
}

/// Those that get anything at all.
fn phases(window: Window, grad_output: Tensor, grad_input: Tensor, width: usize) -> Vec<Phase> {
    let (ci, co) = (grad_input.shape.c, grad_output.shape.c);
    let axes = |len| (0..window.stride).map(move |remainder| Axis::new(window, len, remainder));
    let pairs = axes(grad_input.shape.h)
        .flat_map(|rows| axes(grad_input.shape.w).map(move |cols| (rows, cols)));
    let phase = |(rows, cols): (Axis, Axis)| {
        let layout = Panels { depth: rows.taps * cols.taps * co, columns: ci, width };
        Phase { rows, cols, layout }
    };
    pairs.map(phase).filter(|phase| phase.layout.depth > 0).collect()
}

/// Packs the weights (k, k, ci, co) of all phases, one after the other.
fn pack(phases: &[Phase], window: Window, weight: &[f32], mut out: &mut [f32]) {
    for Phase { rows, cols, layout } in phases {
        let ci = layout.columns;
        let co = layout.depth / (rows.taps * cols.taps);
        let first = |tap: usize| {
            let (ky, kx) = (rows.weight(tap / cols.taps), cols.weight(tap % cols.taps));
            (ky * window.kernel_size + kx) * ci * co
        };
        let taps = (0..rows.taps * cols.taps).map(first);
        let firsts: Vec<usize> = taps.flat_map(|first| first..first + co).collect();
        layout.pack(out, |k, channel| weight[firsts[k] + channel * co]);
        out = &mut out[layout.len()..];
    }
}

struct Convolution<'a> {
    simd: Simd,
    window: Window,
    phases: &'a [Phase],
    panels: &'a [f32],
    grad_output: View<'a, f32>,
    update: Update,
    grad_input: Tensor,
}

impl Convolution<'_> {
    fn run(&self, piece: Piece<'_>) {
        let Piece { n, rows, values } = piece;
        let Window { kernel_size, stride } = self.window;
        if self.update == Update::Overwrite && kernel_size < stride {
            rows_mut(values, self.grad_input).for_each(|row| row.fill(0.0));
        }
        let (h, w) = (self.grad_input.shape.h, self.grad_input.shape.w);
        let rows_of = covered(self.window, self.window.padding(h), &rows);
        let cols_of = covered(self.window, self.window.padding(w), &(0..w));
        if kernel_size == 1 && stride == 1 {
            let Tensor { shape, ld, .. } = self.grad_output.tensor;
            let source = &self.grad_output.data[(n * shape.h + rows.start) * shape.w * ld..];
            let strip = Strip { top: rows.start as isize, left: 0, rows: rows.len(), cols: w };
            return self.products(source, strip, ld, rows, values);
        }
        let strip = Strip {
            top: rows_of.start,
            left: cols_of.start,
            rows: rows_of.clone().count(),
            cols: cols_of.clone().count(),
        };
        scratch::with(|scratch| {
            let c = self.grad_output.tensor.shape.c;
            let source = cut(&mut scratch.strip, strip.len(c));
            strip.copy(self.grad_output, n, source);
            self.products(source, strip, c, rows, values);
        });
    }

    /// Every phase of input rows `rows` from `source`, which holds `strip` with `ld` numbers from a
    /// pixel to the next.
    fn products(
        &self,
        source: &[f32],
        strip: Strip,
        ld: usize,
        rows: Range<usize>,
        values: &mut [f32],
    ) {
        let Tensor { shape, ld: to_ld, .. } = self.grad_input;
        let (co, row_len) = (self.grad_output.tensor.shape.c, strip.cols * ld);
        let mut panels = self.panels;
        for phase in self.phases {
            let (weights, rest) = panels.split_at(phase.layout.len());
            panels = rest;
            let (y, phase_rows) = phase.rows.of(&rows);
            let (x, phase_cols) = phase.cols.of(&(0..shape.w));
            if phase_rows == 0 || phase_cols == 0 {
                continue;
            }
            let top = (phase.rows.source(y) - strip.top) as usize;
            let left = (phase.cols.source(x) - strip.left) as usize;
            let to = Steps {
                start: (y - rows.start) * shape.w * to_ld + x * to_ld,
                row: phase.rows.stride * shape.w * to_ld,
                col: phase.cols.stride * to_ld,
            };
            let from = Steps { start: top * row_len + left * ld, row: row_len, col: ld };
            let grid = Grid { rows: phase_rows, cols: phase_cols, source: from, target: to };
            self.simd.product(StripProduct {
                source,
                runs: Runs { count: phase.rows.taps, len: phase.cols.taps * co, step: row_len },
                grid,
                panels: weights,
                columns: shape.c,
                start: match self.update {
                    Update::Overwrite => Start::Zero,
                    Update::Add => Start::Target,
                },
                relu: false,
                target: &mut *values,
            });
        }
    }
}

/// The indices of grad_output, some perhaps outside of it, that input indices `range` get from.
fn covered(window: Window, padding: usize, range: &Range<usize>) -> Range<isize> {
    let Window { kernel_size, stride } = window;
    let first = (range.start + padding) as isize - (kernel_size as isize - 1);
    let last = (range.end - 1 + padding) / stride;
    first.div_euclid(stride as isize)..last as isize + 1
}
