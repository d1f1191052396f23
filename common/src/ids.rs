//! Ids as types: two integers that could be swapped are never the same type.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty), $label:literal) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($label, " {}"), self.0)
            }
        }
    };
}

id!(
    /// A worker process, as the server knows it. Never used twice within a term.
    WorkerId(u64), "worker"
);
id!(
    /// A logical slice of the global batch: 0 to `replicas` - 1.
    ReplicaId(u32), "replica"
);
id!(
    /// The number of committed steps; as a step's name, the number committed before it.
    GlobalStep(u64), "step"
);
id!(
    /// One life of the server. Drawn anew at every start.
    Term(u64), "term"
);
id!(
    /// A pass over the training images, counted from 0.
    Epoch(u64), "epoch"
);
id!(
    /// A block of `batch_size` consecutive images of the evaluation set.
    BlockId(u32), "block"
);
id!(
    /// The index of an image in its sorted index: what a permutation permutes.
    SampleId(u32), "sample"
);

impl GlobalStep {
    /// The step after this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// What a worker computes: replica `replica` of step `step`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Assignment {
    /// The step whose weights are used and whose batch is read.
    pub step: GlobalStep,
    /// The slice of the global batch.
    pub replica: ReplicaId,
}

impl fmt::Display for Assignment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.step, self.replica)
    }
}

/// Vectors of the server's, all of one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VersionId {
    /// The weights, to train with.
    Weights(GlobalStep),
    /// EMA and running statistics, to evaluate with.
    Ema(GlobalStep),
}
