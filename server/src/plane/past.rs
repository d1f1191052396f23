//! Writes values past the caches.
//!
//! A core that writes has the line first read from memory, which is in vain where all of it is
//! written; and what nobody reads for long drives out of the cache what is needed sooner. A vector
//! that an update leaves for the next one is both. ARCHITECTURE.md has what it gains to say so.

#![allow(unsafe_code)]

use std::marker::PhantomData;

use super::pool::Buffer;

/// A vector that is being written; it can be read once it is [finished](Self::finish).
pub(super) struct Past {
    // In this order, so that memory that is given back unfinished is written too.
    fence: Fence,
    buffer: Buffer,
    /// From the first value on.
    written: usize,
}

/// When it is dropped, waits until all is written that was written past the caches: by this thread,
/// which it therefore does not leave. (Here the lock of the pool would do, so that no test fails
/// without.)
struct Fence(PhantomData<*const ()>);

impl Past {
    /// Into `buffer`.
    pub(super) fn new(buffer: Buffer) -> Self {
        Self { fence: Fence(PhantomData), buffer, written: 0 }
    }

    /// The next ones are `values`. Fastest are whole lines of the cache.
    #[inline(always)]
    pub(super) fn write(&mut self, values: &[f32]) {
        let end = self.written + values.len();
        write(&mut self.buffer[self.written..end], values);
        self.written = end;
    }

    /// All of it is written.
    ///
    /// # Panics
    /// If it is not.
    pub(super) fn finish(self) -> Buffer {
        let Self { fence, buffer, written } = self;
        assert_eq!(written, buffer.len(), "values that were written, of all");
        drop(fence);
        buffer
    }
}

impl Drop for Fence {
    fn drop(&mut self) {
        // SAFETY: every CPU of this architecture has the instruction, which has no operands.
        #[cfg(target_arch = "x86_64")]
        unsafe {
            std::arch::x86_64::_mm_sfence();
        }
    }
}

/// CPUs without such an instruction, or with one that must not meet those of wide vectors, write as
/// ever.
#[inline(always)]
fn write(to: &mut [f32], values: &[f32]) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx") {
        // SAFETY: the CPU has what the function is compiled for. `Past` writes no value twice, lets
        // nobody read before its `Fence`, and neither leaves this thread.
        return unsafe { stream(to, values) };
    }
    to.copy_from_slice(values);
}

/// # Safety
/// The CPU has AVX. Until this thread has met a `Fence` nobody reads or writes what `to` was.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx")]
#[inline]
unsafe fn stream(to: &mut [f32], values: &[f32]) {
    use std::arch::x86_64::{__m256, _mm256_loadu_ps, _mm256_stream_ps};
    const LANES: usize = size_of::<__m256>() / size_of::<f32>();
    assert_eq!(to.len(), values.len(), "room for the values");
    if !to.as_ptr().cast::<__m256>().is_aligned() {
        return to.copy_from_slice(values);
    }
    let (to, rest) = to.as_chunks_mut::<LANES>();
    let (values, of_rest) = values.as_chunks::<LANES>();
    for (to, values) in to.iter_mut().zip(values) {
        // SAFETY: both are as long as a vector, and `to` is aligned as one.
        unsafe { _mm256_stream_ps(to.as_mut_ptr(), _mm256_loadu_ps(values.as_ptr())) };
    }
    if !rest.is_empty() {
        rest.copy_from_slice(of_rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plane::pool::Pool;

    #[test]
    fn values_are_written_however_they_are_cut() {
        let values: Vec<f32> = (0..100).map(|i| i as f32).collect();
        for most in 1..=values.len() {
            let mut past = Past::new(Pool::default().copy_of(&[-1.0; 100]));
            values.chunks(most).for_each(|values| past.write(values));
            assert_eq!(*past.finish(), values, "{most} at a time");
        }
    }

    #[test]
    #[should_panic(expected = "of all")]
    fn what_is_not_all_written_cannot_be_read() {
        let mut past = Past::new(Pool::default().take(3));
        past.write(&[1.0, 2.0]);
        past.finish();
    }
}
