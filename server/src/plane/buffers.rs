//! Memory for flat vectors, used again and again: a fresh 12 MB vector costs 3,000 page faults.

use std::sync::{Arc, Mutex, PoisonError};

/// Vectors of one length that are not in use. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Buffers {
    len: usize,
    kept_max: usize,
    free: Arc<Mutex<Vec<Vec<f32>>>>,
}

impl Buffers {
    /// For vectors of `len` values, of which at most `kept_max` are kept while not in use.
    pub(crate) fn new(len: usize, kept_max: usize) -> Self {
        Self { len, kept_max, free: Arc::default() }
    }

    /// A vector whose values do not matter.
    pub(crate) fn take(&self) -> Vec<f32> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        free.unwrap_or_else(|| vec![0.0; self.len])
    }

    /// Gives a vector back.
    pub(crate) fn give(&self, buffer: Vec<f32>) {
        assert_eq!(buffer.len(), self.len, "a buffer of this pool");
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < self.kept_max {
            free.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_and_only_so_many_are_kept() {
        let buffers = Buffers::new(3, 1);
        let (mut first, second) = (buffers.take(), buffers.take());
        first[0] = 5.0;
        buffers.clone().give(first);
        buffers.give(second);
        assert_eq!(buffers.take(), [5.0, 0.0, 0.0]);
        assert_eq!(buffers.take(), [0.0; 3]);
    }
}
