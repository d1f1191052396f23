//! Memory for chunks, used again and again: fresh memory costs a page fault for each 4 KiB.

use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytemuck::{Pod, Zeroable};

/// Memory that is not in use. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pool(Arc<Mutex<Free>>);

/// By number of lines: there are few, and memory of the right one need not be cleared.
type Free = HashMap<usize, Vec<Vec<Line>>>;

/// Values on one line of a CPU's cache. A vector of the widest kind is as long, and
/// slower on two.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([f32; LINE_VALUES]);

const LINE_VALUES: usize = 16;
const _: () = assert!(size_of::<Line>() == 64 && align_of::<Line>() == 64);

/// Values that go back to their pool when they are dropped.
#[derive(Debug)]
pub(crate) struct Buffer {
    lines: Vec<Line>,
    len: usize,
    pool: Pool,
}

impl Pool {
    /// Room for `len` values; what they are does not matter. What was given back last, and is still
    /// in a core's cache, is taken first.
    pub(crate) fn take(&self, len: usize) -> Buffer {
        let count = len.div_ceil(LINE_VALUES);
        let free = self.free().get_mut(&count).and_then(Vec::pop);
        let lines = free.unwrap_or_else(|| vec![Line::zeroed(); count]);
        Buffer { lines, len, pool: self.clone() }
    }

    /// A copy of `values`.
    pub(crate) fn copy_of(&self, values: &[f32]) -> Buffer {
        let mut buffer = self.take(values.len());
        buffer.copy_from_slice(values);
        buffer
    }

    /// How much memory of the right length for so many values is free.
    #[cfg(test)]
    pub(super) fn count(&self, len: usize) -> usize {
        self.free().get(&len.div_ceil(LINE_VALUES)).map_or(0, Vec::len)
    }

    fn free(&self) -> MutexGuard<'_, Free> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Buffer {
    /// A copy, in memory of the same pool.
    pub(crate) fn copy(&self) -> Self {
        self.pool.copy_of(self)
    }
}

impl Deref for Buffer {
    type Target = [f32];

    #[inline(always)]
    fn deref(&self) -> &[f32] {
        &bytemuck::cast_slice(&self.lines)[..self.len]
    }
}

impl DerefMut for Buffer {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.len]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let lines = std::mem::take(&mut self.lines);
        self.pool.free().entry(lines.len()).or_default().push(lines);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_used_again_the_last_first() {
        let pool = Pool::default();
        let (first, second) = (pool.take(3), pool.copy_of(&[1.0, 2.0, 3.0]));
        assert_eq!(*second, [1.0, 2.0, 3.0]);
        let (of_first, of_second) = (first.as_ptr(), second.as_ptr());
        drop(first);
        drop(second);
        let (other, again, and_again) = (pool.take(17), pool.take(3), pool.take(4));
        assert_eq!((again.as_ptr(), and_again.as_ptr()), (of_second, of_first));
        assert_eq!((other.len(), again.len(), and_again.len()), (17, 3, 4));
        assert!(other.as_ptr().cast::<Line>().is_aligned());
    }
}
