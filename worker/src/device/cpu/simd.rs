//! The instruction set found, and the two inner loops of all matrix products.
//!
//! Every element of a product is one chain of fused multiply-adds along the inner dimension, in
//! order, whatever the width of the vectors: AVX2, AVX-512, NEON and the scalar fallback give the
//! same bits. `pulp` chooses at run time and keeps the vector code free of `unsafe`.

use pulp::{Arch, WithSimd};

/// Rows of a tile: 6 x 2 vectors of sums, 2 of the panel and 1 of the row fill 16 registers.
pub(super) const TILE_ROWS: usize = 6;

/// The instruction set that inner loops are compiled for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Simd {
    arch: Arch,
    panel_width: usize,
}

impl Simd {
    /// The best that this machine has.
    pub(super) fn new() -> Self {
        Self::of(Arch::new())
    }

    fn of(arch: Arch) -> Self {
        Self { arch, panel_width: arch.dispatch(PanelWidth) }
    }

    /// Columns of a panel: two vectors.
    pub(super) fn panel_width(&self) -> usize {
        self.panel_width
    }

    /// Its name, for people.
    pub(super) fn name(&self) -> String {
        format!("{} numbers a vector", self.panel_width / 2)
    }

    /// Runs `work` compiled for the instruction set, for loops that the compiler vectorises itself.
    pub(super) fn run<R>(&self, work: impl FnOnce() -> R) -> R {
        self.arch.dispatch(work)
    }

    pub(super) fn product<P: WithSimd>(&self, product: P) -> P::Output {
        self.arch.dispatch(product)
    }
}

struct PanelWidth;

impl WithSimd for PanelWidth {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) -> usize {
        2 * S::F32_LANES
    }
}

/// One row of a tile: two vectors.
pub(super) type Pair<S> = [<S as pulp::Simd>::f32s; 2];

/// The sums of [`TILE_ROWS`] rows by one panel.
type Tile<S> = [Pair<S>; TILE_ROWS];

/// The output pixels of a strip, and where the window of each begins in the source.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grid {
    pub(super) rows: usize,
    pub(super) cols: usize,
    /// Source index of the window of pixel (0, 0), and steps to the next row and column.
    pub(super) source: Steps,
    /// Target index of pixel (0, 0), and steps to the next row and column.
    pub(super) target: Steps,
}

/// An index as a linear function of (row, column).
#[derive(Clone, Copy, Debug)]
pub(super) struct Steps {
    pub(super) start: usize,
    pub(super) row: usize,
    pub(super) col: usize,
}

impl Steps {
    #[inline(always)]
    pub(super) fn at(&self, row: usize, col: usize) -> usize {
        self.start + row * self.row + col * self.col
    }
}

/// What a window covers in the source: `count` runs of `len` numbers, `step` apart.
#[derive(Clone, Copy, Debug)]
pub(super) struct Runs {
    pub(super) count: usize,
    pub(super) len: usize,
    pub(super) step: usize,
}

/// What the sums of a [`StripProduct`] start from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Start<'a> {
    Zero,
    /// One number for each column, padded to whole panels.
    Bias(&'a [f32]),
    /// What the target holds.
    Target,
}

/// A convolution of a strip as a matrix product that gathers its left side where it lies:
/// target[pixel] = start + window(pixel) * panels, for every pixel of the grid.
pub(super) struct StripProduct<'a> {
    pub(super) source: &'a [f32],
    pub(super) runs: Runs,
    pub(super) grid: Grid,
    /// (runs.count * runs.len, columns) in panels.
    pub(super) panels: &'a [f32],
    /// Numbers of a target pixel.
    pub(super) columns: usize,
    pub(super) start: Start<'a>,
    /// Whether negative results become 0.
    pub(super) relu: bool,
    pub(super) target: &'a mut [f32],
}

impl WithSimd for StripProduct<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(mut self, simd: S) {
        let width = 2 * S::F32_LANES;
        let depth = self.runs.count * self.runs.len;
        for (number, panel) in self.panels.chunks_exact(depth * width).enumerate() {
            let panel = S::as_simd_f32s(panel).0;
            let first = number * width;
            self.panel(simd, panel, first, width.min(self.columns - first));
        }
    }
}

impl StripProduct<'_> {
    /// All pixels by one panel, which holds columns `first` to `first + columns`.
    #[inline(always)]
    fn panel<S: pulp::Simd>(&mut self, simd: S, panel: &[S::f32s], first: usize, columns: usize) {
        let Grid { rows, cols, source, target } = self.grid;
        let (mut row, mut col) = (0, 0);
        let mut left = rows * cols;
        while left > 0 {
            let pixels = left.min(TILE_ROWS);
            let mut sources = [source.at(row, col); TILE_ROWS];
            let mut targets = [0; TILE_ROWS];
            for (source_at, target_at) in sources.iter_mut().zip(&mut targets).take(pixels) {
                *source_at = source.at(row, col);
                *target_at = target.at(row, col) + first;
                col += 1;
                if col == cols {
                    (row, col) = (row + 1, 0);
                }
            }
            let mut tile = self.start(simd, &targets[..pixels], first, columns);
            multiply_runs(simd, self.source, sources, self.runs, panel, &mut tile);
            for (pair, at) in tile.iter().zip(targets).take(pixels) {
                let pair = if self.relu { relu(simd, *pair) } else { *pair };
                store(simd, &mut self.target[at..at + columns], pair);
            }
            left -= pixels;
        }
    }

    #[inline(always)]
    fn start<S: pulp::Simd>(
        &self,
        simd: S,
        targets: &[usize],
        first: usize,
        columns: usize,
    ) -> Tile<S> {
        let zero = [simd.splat_f32s(0.0); 2];
        match self.start {
            Start::Zero => [zero; TILE_ROWS],
            Start::Bias(bias) => [load(simd, &bias[first..first + columns]); TILE_ROWS],
            Start::Target => {
                let mut tile = [zero; TILE_ROWS];
                for (pair, at) in tile.iter_mut().zip(targets) {
                    *pair = load(simd, &self.target[*at..*at + columns]);
                }
                tile
            }
        }
    }
}

/// tile[i] += the runs of the source from sources[i] on, as one row, times the panel.
#[inline(always)]
fn multiply_runs<S: pulp::Simd>(
    simd: S,
    source: &[f32],
    sources: [usize; TILE_ROWS],
    runs: Runs,
    panel: &[S::f32s],
    tile: &mut Tile<S>,
) {
    let mut sums = *tile;
    for (run, panel) in panel.chunks_exact(2 * runs.len).enumerate() {
        let rows: [&[f32]; TILE_ROWS] =
            std::array::from_fn(|i| &source[sources[i] + run * runs.step..][..runs.len]);
        let panel = pulp::as_arrays::<2, _>(panel).0;
        for k in 0..runs.len.min(panel.len()) {
            for i in 0..TILE_ROWS {
                let value = simd.splat_f32s(rows[i][k]);
                sums[i][0] = simd.mul_add_f32s(value, panel[k][0], sums[i][0]);
                sums[i][1] = simd.mul_add_f32s(value, panel[k][1], sums[i][1]);
            }
        }
    }
    *tile = sums;
}

/// A matrix product whose sides are both packed: target += tiles * panels.
pub(super) struct PackedProduct<'a> {
    /// Inner dimension.
    pub(super) depth: usize,
    /// Left side: tile by tile, for each of `depth` columns its [`TILE_ROWS`] numbers.
    pub(super) tiles: &'a [f32],
    /// Right side: panel by panel, for each of `depth` rows one row of the panel.
    pub(super) panels: &'a [f32],
    /// Panel by panel, for each of `target_rows` rows one row of the panel.
    pub(super) target: &'a mut [f32],
    pub(super) target_rows: usize,
    /// Row of the target that the first row of the first tile is added to.
    pub(super) first_row: usize,
}

impl WithSimd for PackedProduct<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, simd: S) {
        let width = 2 * S::F32_LANES;
        let panels = self.panels.chunks_exact(self.depth * width);
        for (panel, target) in panels.zip(self.target.chunks_exact_mut(self.target_rows * width)) {
            let panel = pulp::as_arrays::<2, _>(S::as_simd_f32s(panel).0).0;
            let tiles = self.tiles.chunks_exact(self.depth * TILE_ROWS);
            let target = target[self.first_row * width..].chunks_exact_mut(TILE_ROWS * width);
            for (tile, target) in tiles.zip(target) {
                let sums = multiply_packed(simd, pulp::as_arrays::<TILE_ROWS, _>(tile).0, panel);
                let target = pulp::as_arrays_mut::<2, _>(S::as_mut_simd_f32s(target).0).0;
                for (target, sums) in target.iter_mut().zip(sums) {
                    target[0] = simd.add_f32s(target[0], sums[0]);
                    target[1] = simd.add_f32s(target[1], sums[1]);
                }
            }
        }
    }
}

#[inline(always)]
fn multiply_packed<S: pulp::Simd>(
    simd: S,
    columns: &[[f32; TILE_ROWS]],
    panel: &[Pair<S>],
) -> Tile<S> {
    let mut sums = [[simd.splat_f32s(0.0); 2]; TILE_ROWS];
    for (column, panel) in columns.iter().zip(panel) {
        for i in 0..TILE_ROWS {
            let value = simd.splat_f32s(column[i]);
            sums[i][0] = simd.mul_add_f32s(value, panel[0], sums[i][0]);
            sums[i][1] = simd.mul_add_f32s(value, panel[1], sums[i][1]);
        }
    }
    sums
}

#[inline(always)]
fn relu<S: pulp::Simd>(simd: S, pair: Pair<S>) -> Pair<S> {
    let zero = simd.splat_f32s(0.0);
    pair.map(|values| simd.max_f32s(values, zero))
}

/// A row of at most two vectors; zeros where it ends.
#[inline(always)]
pub(super) fn load<S: pulp::Simd>(simd: S, row: &[f32]) -> Pair<S> {
    if let ([whole], _) = pulp::as_arrays::<2, _>(S::as_simd_f32s(row).0) {
        return *whole;
    }
    let (low, high) = row.split_at(row.len().min(S::F32_LANES));
    [simd.partial_load_f32s(low), simd.partial_load_f32s(high)]
}

/// As [`load`], the other way.
#[inline(always)]
pub(super) fn store<S: pulp::Simd>(simd: S, row: &mut [f32], pair: Pair<S>) {
    if let ([whole], _) = pulp::as_arrays_mut::<2, _>(S::as_mut_simd_f32s(row).0) {
        *whole = pair;
        return;
    }
    let (low, high) = row.split_at_mut(row.len().min(S::F32_LANES));
    simd.partial_store_f32s(low, pair[0]);
    simd.partial_store_f32s(high, pair[1]);
}
