//! The job: config and dataset together, everything a result is a function of.

use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::ids::{Assignment, BlockId, Epoch};
use crate::layout::ParamLayout;
use crate::model::{ModelError, Network};

/// Version of the rules in `ps.proto`; both sides must have the same.
pub const PROTOCOL_VERSION: u32 = 1;

/// What this program is: results are promised equal only within one build.
pub const BUILD: &str = concat!("hw2 ", env!("CARGO_PKG_VERSION"));

/// What the server tells its workers and what a checkpoint says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// The validated config.
    pub config: Config,
    /// What the server knows of the dataset without its images.
    pub dataset: Card,
}

/// The dataset card: classes, counts and fingerprint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card {
    /// Names of the classes in byte order; a label is an index into it.
    pub classes: Vec<String>,
    /// Training images.
    pub train: u32,
    /// Validation images.
    pub val: u32,
    /// SHA-256, in hex, over sorted paths and content hashes.
    pub fingerprint: String,
}

impl Job {
    /// The network of `[model]` with the dataset's classes.
    ///
    /// # Errors
    /// As [`crate::model::ModelSpec::network`].
    pub fn network(&self) -> Result<Network, ModelError> {
        self.config.model.network(self.dataset.classes.len())
    }

    /// The layout of its network.
    ///
    /// # Errors
    /// As [`crate::model::ModelSpec::network`].
    pub fn layout(&self) -> Result<ParamLayout, ModelError> {
        Ok(ParamLayout::new(&self.network()?))
    }

    /// Number of blocks into which the evaluation set is cut.
    pub fn eval_blocks(&self) -> u32 {
        self.dataset.val.div_ceil(self.config.batch_size)
    }

    /// Indices in the validation set of the images of `block`.
    pub fn eval_range(&self, block: BlockId) -> std::ops::Range<u32> {
        let start = block.0 * self.config.batch_size;
        start..(start + self.config.batch_size).min(self.dataset.val)
    }

    /// Whether the state after `step` commits is evaluated: every `checkpoint_every`, and the last.
    pub fn eval_due(&self, step: crate::ids::GlobalStep) -> bool {
        step.0.is_multiple_of(self.config.checkpoint_every) || step.0 == self.config.max_steps
    }

    /// Where image `index` of the micro-batch of `assignment` comes from: the epoch, and the place in
    /// that epoch's permutation. Every image is used once per epoch, and batches run on over its end.
    pub fn position(&self, assignment: Assignment, index: u32) -> (Epoch, u32) {
        let Config { replicas, batch_size, .. } = self.config;
        let batch = assignment.step.0 * u64::from(replicas) + u64::from(assignment.replica.0);
        let position = batch * u64::from(batch_size) + u64::from(index);
        let train = u64::from(self.dataset.train);
        (Epoch(position / train), (position % train) as u32)
    }
}
