//! The vectors of one step as pulls stream them, cut into chunks once for all workers.

use std::sync::Arc;

use hw2_common::ids::GlobalStep;
use hw2_common::state::Flat;
use hw2_common::wire;
use hw2_proto::v1::{Chunk, Part};

/// What one kind of pull streams. The chunks share the vectors' memory, so a stream holds a version
/// only weakly: then at most two versions of the weights exist, however slowly a worker reads.
#[derive(Debug)]
pub(crate) struct Version {
    /// Committed steps.
    pub(crate) step: u64,
    /// In the order in which forward needs them.
    pub(crate) chunks: Vec<Chunk>,
}

/// What pulls may stream now.
#[derive(Clone, Debug)]
pub(crate) struct Versions {
    pub(crate) weights: Arc<Version>,
    /// EMA and running statistics; only while this step may be evaluated.
    pub(crate) evaluation: Option<Arc<Version>>,
}

impl Versions {
    /// Cuts the vectors that are to be sent at `step`: the weights with the checksums of their chunks,
    /// and EMA and running statistics only when an evaluation is due.
    pub(super) fn new(
        step: GlobalStep,
        (weights, checksums): (&Flat, &[u32]),
        evaluation: Option<(&Flat, &Flat)>,
    ) -> Self {
        let step = step.0;
        let weights = wire::chunks_with(Part::Weights, weights, checksums).collect();
        let evaluation = evaluation.map(|(ema, buffers)| {
            let buffers = wire::chunks(Part::Buffers, 0, buffers);
            let chunks = wire::chunks(Part::Ema, 0, ema).chain(buffers).collect();
            Arc::new(Version { step, chunks })
        });
        Self { weights: Arc::new(Version { step, chunks: weights }), evaluation }
    }
}
