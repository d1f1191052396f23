//! A matrix as the inner loops read it: cut into panels of a few columns, or into tiles of a few
//! rows, each contiguous.

use super::simd::TILE_ROWS;

/// Sizes of a matrix in panels: panel by panel, for each of `depth` rows one row of the panel. The
/// last panel is padded with zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Panels {
    pub(super) depth: usize,
    pub(super) columns: usize,
    /// Columns of a panel.
    pub(super) width: usize,
}

impl Panels {
    /// Numbers, padding included.
    pub(super) fn len(&self) -> usize {
        self.depth * self.columns.next_multiple_of(self.width)
    }

    /// Packs the matrix with rows `row(0)`, `row(1)`, ... into the beginning of `out`.
    #[inline(always)]
    pub(super) fn pack_rows<'a>(&self, out: &mut [f32], row: impl Fn(usize) -> &'a [f32]) {
        let Self { depth, columns, width } = *self;
        let out = &mut out[..self.len()];
        for k in 0..depth {
            let row = &row(k)[..columns];
            for (panel, values) in out.chunks_exact_mut(depth * width).zip(row.chunks(width)) {
                let (whole, padding) = panel[k * width..][..width].split_at_mut(values.len());
                whole.copy_from_slice(values);
                padding.fill(0.0);
            }
        }
    }

    /// Packs the matrix with the numbers `at(row, column)` into the beginning of `out`.
    #[inline(always)]
    pub(super) fn pack(&self, out: &mut [f32], at: impl Fn(usize, usize) -> f32) {
        let Self { depth, columns, width } = *self;
        let panels = out[..self.len()].chunks_exact_mut(depth * width);
        for (number, panel) in panels.enumerate() {
            for (k, row) in panel.chunks_exact_mut(width).enumerate() {
                for (lane, out) in row.iter_mut().enumerate() {
                    let column = number * width + lane;
                    *out = if column < columns { at(k, column) } else { 0.0 };
                }
            }
        }
    }
}

/// Numbers of a (rows, depth) matrix in tiles: tile by tile, for each of `depth` columns its
/// [`TILE_ROWS`] numbers. The last tile is padded with zeros.
pub(super) fn tiles_len(rows: usize, depth: usize) -> usize {
    rows.next_multiple_of(TILE_ROWS) * depth
}

/// Packs the (rows, depth) matrix with the numbers `at(row, column)` into `out`, of that length.
#[inline(always)]
pub(super) fn pack_tiles(
    out: &mut [f32],
    (rows, depth): (usize, usize),
    at: impl Fn(usize, usize) -> f32,
) {
    for (number, tile) in out.chunks_exact_mut(depth * TILE_ROWS).enumerate() {
        for (column, values) in tile.chunks_exact_mut(TILE_ROWS).enumerate() {
            for (lane, out) in values.iter_mut().enumerate() {
                let row = number * TILE_ROWS + lane;
                *out = if row < rows { at(row, column) } else { 0.0 };
            }
        }
    }
}
