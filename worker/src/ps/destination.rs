//! Where the vectors go that a worker receives.

use hw2_common::wire::Values;

/// Takes in what pulls receive, where it is needed: there is no other copy of it.
pub trait Destination {
    /// Some values of a vector, as they arrived. They are part of no version yet: until the pull is
    /// over, what is computed with them may come to nothing.
    fn receive(&mut self, vector: Vector, start: usize, values: Values<'_>);

    /// A version begins to arrive: what was there, and what has arrived of another, is void.
    fn renew(&mut self);

    /// May compute with what has arrived, while more is waited for. Says whether it did.
    fn work_ahead(&mut self) -> bool;
}

/// A vector of a [`Destination`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vector {
    /// Parameters for training.
    Weights,
    /// Parameters for evaluation.
    Ema,
    /// BN running statistics.
    Buffers,
}
