//! How the loops over a chunk are cut, and with which vectors they are computed.

use std::ops::Range;

/// Values between two looks at a checksum: all vectors' together fit a core's second cache.
pub(super) const STRIP: usize = 2048;
/// Values that go through all of the arithmetic before the next ones: those are in the first cache.
pub(super) const TILE: usize = 256;
/// Values between two looks ahead, and that go past the caches at once. All lines of the next strip
/// at once are slower than none: a core can wait for few at a time.
pub(super) const STRETCH: usize = 64;

/// The ranges of the strips of a chunk.
pub(super) fn strips(len: usize) -> impl Iterator<Item = Range<usize>> {
    cut(0..len, STRIP)
}

/// The ranges of the tiles of a strip.
#[inline(always)]
pub(super) fn tiles(strip: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    cut(strip, TILE)
}

/// The ranges of the stretches of a tile.
#[inline(always)]
pub(super) fn stretches(tile: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    cut(tile, STRETCH)
}

#[inline(always)]
fn cut(range: Range<usize>, most: usize) -> impl Iterator<Item = Range<usize>> {
    let end = range.end;
    range.step_by(most).map(move |start| start..(start + most).min(end))
}

/// Computes with the widest vectors that this CPU has. The bits are those of any CPU: an operation
/// by element gives one result at every width, and none is fused. `loops` must be `inline(always)`:
/// what is called is not compiled for them.
pub(super) fn widest<R>(loops: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(loops)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_in_one_stretch_of_one_tile_of_one_strip() {
        for len in [0, 1, TILE - 1, TILE, STRIP, STRIP + TILE + 1, 3 * STRIP] {
            let tiles: Vec<_> = strips(len).flat_map(tiles).collect();
            assert!(tiles.iter().all(|tile| (1..=TILE).contains(&tile.len())), "{tiles:?}");
            let stretches: Vec<_> = tiles.into_iter().flat_map(stretches).collect();
            assert!(stretches.iter().all(|it| (1..=STRETCH).contains(&it.len())), "{stretches:?}");
            assert_eq!(stretches.into_iter().flatten().collect::<Vec<_>>(), Vec::from_iter(0..len));
        }
    }
}
