//! Memory of one thread for what a primitive makes and forgets: allocated once, then kept.

use std::cell::RefCell;

/// Cut to length by whoever borrows it; holds whatever the last one left.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// A padded strip of an image.
    pub(super) strip: Vec<f32>,
    /// The right side of a product.
    pub(super) panels: Vec<f32>,
    /// The left side of a product.
    pub(super) tiles: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Lends the calling thread's scratch memory to `work`, which must not ask for it again.
pub(super) fn with<R>(work: impl FnOnce(&mut Scratch) -> R) -> R {
    SCRATCH.with_borrow_mut(work)
}

/// The first `len` numbers of `memory`, which grows as needed.
pub(super) fn cut(memory: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if memory.len() < len {
        memory.resize(len, 0.0);
    }
    &mut memory[..len]
}
