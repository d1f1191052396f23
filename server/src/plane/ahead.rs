//! Has memory fetched into the cache before a loop gets there.
//!
//! A CPU sees by itself that a loop reads on and on, but anew on each page of 4 KiB, and only of so many
//! vectors at once: an update goes through more of them. ARCHITECTURE.md has what it gains to be told
//! what is next.

#![allow(unsafe_code)]

use hw2_common::wire::Values;

/// Bytes that a cache fetches at once, on the CPUs that are told.
const LINE: usize = 64;

/// Vectors that a loop goes through side by side, from the first number to the last.
#[derive(Debug, Default)]
pub(super) struct Ahead(Vec<Vector>);

#[derive(Debug)]
struct Vector {
    /// Where it begins; what is there is never looked at.
    start: *const u8,
    /// Bytes of a number.
    size: usize,
    /// How many numbers ahead it is fetched.
    lead: usize,
}

impl Ahead {
    /// One more vector, which is fetched `lead` numbers ahead.
    pub(super) fn add(&mut self, values: Values<'_>, lead: usize) {
        let start = values.bytes().as_ptr();
        self.0.push(Vector { start, size: values.format().bytes(), lead });
    }

    /// The thread that calls it is at number `start`: fetches for it what `count` numbers take of each
    /// vector, further on. There may be fewer of them.
    #[inline(always)]
    pub(super) fn fetch(&self, start: usize, count: usize) {
        for vector in &self.0 {
            let first = vector.start.wrapping_add((start + vector.lead) * vector.size);
            for line in (0..count * vector.size).step_by(LINE) {
                fetch(first.wrapping_add(line));
            }
        }
    }
}

/// Fetches the line that `address` is in; on other CPUs than these nothing happens.
#[inline(always)]
fn fetch(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: it is a hint, which nothing can be observed of but its time; no address is wrong.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}
