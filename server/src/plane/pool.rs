//! Memory for chunks, used again and again: fresh memory costs a page fault for each 4 KiB.

use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Memory that is not in use. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pool(Arc<Mutex<Free>>);

/// By length: there are few, and memory of the right one need not be cleared.
type Free = HashMap<usize, Vec<Vec<f32>>>;

/// Values that go back to their pool when they are dropped.
#[derive(Debug)]
pub(crate) struct Buffer {
    values: Vec<f32>,
    pool: Pool,
}

impl Pool {
    /// Room for `len` values; what they are does not matter. What was given back last, and is still
    /// in a core's cache, is taken first.
    pub(crate) fn take(&self, len: usize) -> Buffer {
        let free = self.free().get_mut(&len).and_then(Vec::pop);
        let values = free.unwrap_or_else(|| vec![0.0; len]);
        Buffer { values, pool: self.clone() }
    }

    /// A copy of `values`.
    pub(crate) fn copy_of(&self, values: &[f32]) -> Buffer {
        let mut buffer = self.take(values.len());
        buffer.copy_from_slice(values);
        buffer
    }

    fn free(&self) -> MutexGuard<'_, Free> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clone for Buffer {
    fn clone(&self) -> Self {
        self.pool.copy_of(self)
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.values
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let values = std::mem::take(&mut self.values);
        self.pool.free().entry(values.len()).or_default().push(values);
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
        let (other, again, and_again) = (pool.take(2), pool.take(3), pool.take(3));
        assert_eq!((again.as_ptr(), and_again.as_ptr()), (of_second, of_first));
        assert_eq!((other.len(), again.len(), and_again.len()), (2, 3, 3));
    }
}
