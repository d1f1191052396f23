//! Matrix product, cut into blocks of fixed size whose sums are added in order.

use rayon::prelude::*;

use super::Team;
use super::panels::{Panels, pack_tiles, tiles_len};
use super::scratch::{self, cut};
use super::simd::{PackedProduct, Simd, TILE_ROWS};
use crate::device::memory::Memory;
use crate::device::{Gemm, Span};

/// Rows of a block.
const ROWS: usize = 42 * TILE_ROWS;
/// Columns of a block: whole panels, whatever the width of a vector.
const COLUMNS: usize = 256;
/// Inner dimension of a block.
const INNER: usize = 256;

pub(super) fn multiply(
    memory: &mut Memory<f32>,
    team: &mut Team,
    gemm: Gemm,
    a: Span,
    b: Span,
    c: Span,
) {
    let blocks = Blocks::new(gemm, team.simd.panel_width());
    let products = cut(&mut team.partials, blocks.count() * blocks.len());
    let simd = team.simd;
    memory.write_span(c, |memory, c| {
        let (a, b) = (memory.span(a), memory.span(b));
        team.pool.install(|| {
            products.par_chunks_mut(blocks.len()).enumerate().for_each(|(number, product)| {
                blocks.multiply(simd, blocks.place(number), a, b, product);
            });
            c.par_chunks_mut(gemm.n).enumerate().for_each(|(row, out)| {
                blocks.gather(products, row, out);
            });
        });
    });
}

/// How a product is cut.
#[derive(Clone, Copy)]
struct Blocks {
    gemm: Gemm,
    /// Columns of a panel.
    width: usize,
    /// Rows and columns of a block's product, padded to whole tiles and panels.
    rows: usize,
    columns: usize,
}

/// First row, column and inner index of a block.
#[derive(Clone, Copy)]
struct Place {
    row: usize,
    column: usize,
    inner: usize,
}

impl Blocks {
    fn new(gemm: Gemm, width: usize) -> Self {
        let rows = gemm.m.next_multiple_of(TILE_ROWS).min(ROWS);
        let columns = gemm.n.next_multiple_of(width).min(COLUMNS);
        Self { gemm, width, rows, columns }
    }

    /// Numbers of one block's product.
    fn len(&self) -> usize {
        self.rows * self.columns
    }

    fn inner_count(&self) -> usize {
        self.gemm.k.div_ceil(INNER)
    }

    fn column_count(&self) -> usize {
        self.gemm.n.div_ceil(COLUMNS)
    }

    fn count(&self) -> usize {
        self.gemm.m.div_ceil(ROWS) * self.column_count() * self.inner_count()
    }

    /// Blocks are numbered by row, then column, then inner index.
    fn place(&self, number: usize) -> Place {
        let (outer, inner) = (number / self.inner_count(), number % self.inner_count());
        let (row, column) = (outer / self.column_count(), outer % self.column_count());
        Place { row: row * ROWS, column: column * COLUMNS, inner: inner * INNER }
    }

    /// `product` = the block of `a` times the block of `b` at `place`, in panels.
    fn multiply(&self, simd: Simd, place: Place, a: &[f32], b: &[f32], product: &mut [f32]) {
        let Gemm { m, n, k, transpose_a, transpose_b } = self.gemm;
        let Place { row, column, inner } = place;
        let depth = (k - inner).min(INNER);
        let rows = (m - row).min(ROWS);
        let layout = Panels { depth, columns: (n - column).min(COLUMNS), width: self.width };
        scratch::with(|scratch| {
            let panels = cut(&mut scratch.panels, layout.len());
            if transpose_b {
                layout.pack(panels, |p, j| b[(column + j) * k + inner + p]);
            } else {
                layout.pack_rows(panels, |p| &b[(inner + p) * n + column..]);
            }
            let tiles = cut(&mut scratch.tiles, tiles_len(rows, depth));
            if transpose_a {
                pack_tiles(tiles, (rows, depth), |i, p| a[(inner + p) * m + row + i]);
            } else {
                pack_tiles(tiles, (rows, depth), |i, p| a[(row + i) * k + inner + p]);
            }
            product.fill(0.0);
            let (target, target_rows) = (product, self.rows);
            simd.product(PackedProduct { depth, tiles, panels, target, target_rows, first_row: 0 });
        });
    }

    /// Adds up row `row` of c from the blocks, in the order of their inner indices.
    fn gather(&self, products: &[f32], row: usize, out: &mut [f32]) {
        let first = row / ROWS * self.column_count();
        out.fill(0.0);
        for (column, out) in out.chunks_mut(COLUMNS).enumerate() {
            let number = (first + column) * self.inner_count();
            let blocks = products[number * self.len()..].chunks(self.len());
            for block in blocks.take(self.inner_count()) {
                let panels = block.chunks(self.rows * self.width);
                for (out, panel) in out.chunks_mut(self.width).zip(panels) {
                    let values = &panel[row % ROWS * self.width..];
                    out.iter_mut().zip(values).for_each(|(out, value)| *out += value);
                }
            }
        }
    }
}
