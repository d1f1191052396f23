//! Writes values past the caches.
//!
//! A core that writes has the line first read from memory, which is in vain where all of it is written;
//! and what nobody reads for long drives out of the cache what is needed sooner. A vector that an
//! update leaves for the next one is both. ARCHITECTURE.md has what it gains to say so.

#![allow(unsafe_code)]

use super::pool::Buffer;

/// A vector that is being written; only then can it be read.
#[derive(Debug)]
pub(super) struct Past {
    // The order matters: memory that is given back is written.
    fence: Fence,
    buffer: Buffer,
}

/// Waits, when it is dropped, until all is written that this thread has written past the caches.
#[derive(Debug)]
struct Fence;

impl Past {
    /// Into `buffer`.
    pub(super) fn new(buffer: Buffer) -> Self {
        Self { fence: Fence, buffer }
    }

    /// Those from number `start` on become `values`. Faster in whole lines of the cache, one after
    /// another.
    #[inline(always)]
    pub(super) fn write(&mut self, start: usize, values: &[f32]) {
        write(&mut self.buffer[start..start + values.len()], values);
    }

    /// All of it is written.
    pub(super) fn finish(self) -> Buffer {
        let Self { fence, buffer } = self;
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

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn write(to: &mut [f32], values: &[f32]) {
    use std::arch::x86_64::{__m128, _mm_loadu_ps, _mm_stream_ps};
    const LANES: usize = size_of::<__m128>() / size_of::<f32>();
    if !to.as_ptr().cast::<__m128>().is_aligned() {
        return to.copy_from_slice(values);
    }
    let (to, rest) = to.as_chunks_mut::<LANES>();
    let (values, of_rest) = values.as_chunks::<LANES>();
    for (to, values) in to.iter_mut().zip(values) {
        // SAFETY: both are as long as a vector, `to` is aligned as one, and every CPU of this architecture
        // has the instructions. Until `Fence` nobody but this thread has a way to the memory, and it
        // does not read it.
        unsafe { _mm_stream_ps(to.as_mut_ptr(), _mm_loadu_ps(values.as_ptr())) };
    }
    if !rest.is_empty() {
        rest.copy_from_slice(of_rest);
    }
}

/// Other CPUs have no such instruction that could be used from here.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn write(to: &mut [f32], values: &[f32]) {
    to.copy_from_slice(values);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plane::pool::Pool;

    #[test]
    fn values_are_written_wherever_they_begin_and_end() {
        let values: Vec<f32> = (0..40).map(|i| i as f32).collect();
        for start in 0..9 {
            for len in 0..=20 {
                let mut past = Past::new(Pool::default().copy_of(&[-1.0; 40]));
                past.write(start, &values[start..start + len]);
                let written = past.finish();
                let expected =
                    |i: usize| if (start..start + len).contains(&i) { i as f32 } else { -1.0 };
                assert!(written.iter().enumerate().all(|(i, value)| *value == expected(i)));
            }
        }
    }
}
