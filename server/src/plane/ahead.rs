//! Has memory fetched into the cache before a loop gets there.
//!
//! A CPU sees by itself that a loop reads on and on, but anew on each page of 4 KiB, and only of so
//! many vectors at once: an update goes through more of them. ARCHITECTURE.md has what it gains to
//! be told what is next.

#![allow(unsafe_code)]

use super::strips::STRETCH;

/// Bytes that a cache fetches at once, on the CPUs that are told.
const LINE: usize = 64;

/// Fetches a stretch of `values`, from number `lead` on, for the thread that is at the first of
/// them. It may reach beyond the end.
#[inline(always)]
pub(super) fn fetch<T>(values: &[T], lead: usize) {
    let first = values.as_ptr().wrapping_add(lead).cast::<u8>();
    for line in (0..STRETCH * size_of::<T>()).step_by(LINE) {
        fetch_line(first.wrapping_add(line));
    }
}

/// Fetches the line that `address` is in; on other CPUs than these nothing happens.
#[inline(always)]
fn fetch_line(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: it is a hint, which nothing can be observed of but its time; no address is wrong.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}
