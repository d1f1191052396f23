//! The job: config and dataset together, everything a result is a function of.

use serde::{Deserialize, Serialize};

use crate::config::{Config, ConfigError};
use crate::ids::{Assignment, BlockId, Epoch};
use crate::layout::ParamLayout;
use crate::model::{ModelError, Network};

/// Version of the rules in `ps.proto`; both sides must have the same.
pub const PROTOCOL_VERSION: u32 = 3;

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

/// Why a config and a dataset make no job.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The config alone.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The model with as many classes.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The dataset, or the config with it: what, with the values, and what to do.
    #[error("{0}")]
    Dataset(String),
}

impl Job {
    /// Checks what can only be checked with config and dataset together.
    ///
    /// # Errors
    /// An invalid config, a model that makes no network of these classes, a dataset that is empty
    /// or has fewer images than replicas.
    pub fn new(config: Config, dataset: Card) -> Result<Self, JobError> {
        config.validate()?;
        let job = Self { config, dataset };
        let parameters = job.layout()?.params.len() as u64;
        job.check(parameters).map_err(JobError::Dataset)?;
        Ok(job)
    }

    fn check(&self, parameters: u64) -> Result<(), String> {
        let Card { classes, train, val, .. } = &self.dataset;
        let Config { replicas, batch_size, max_steps, .. } = self.config;
        if let Some(pair) = classes.windows(2).find(|pair| pair[0] >= pair[1]) {
            return Err(format!(
                "class `{}` comes before `{}`: classes must be in byte order, each once",
                pair[0], pair[1]
            ));
        }
        for (folder, images) in [("train", train), ("val", val)] {
            if *images == 0 {
                return Err(format!(
                    "the dataset has no image in {folder}/: put some into its class folders, or \
                     make both folders with `hw2 split`"
                ));
            }
        }
        if replicas > *train {
            return Err(format!(
                "replicas = {replicas} is more than the {train} training images: lower replicas \
                 or add images"
            ));
        }
        let images = u128::from(max_steps) * u128::from(replicas) * u128::from(batch_size);
        if images / u128::from(*train) > u128::from(u32::MAX) {
            return Err(format!(
                "max_steps = {max_steps} of {replicas} x {batch_size} images are more than 2^32 \
                 epochs of {train} training images: lower max_steps"
            ));
        }
        if parameters > u64::from(u32::MAX) {
            return Err(format!(
                "the model has {parameters} parameters for {} classes, more than 2^32: make its \
                 layers narrower",
                classes.len()
            ));
        }
        Ok(())
    }

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

    /// Where image `index` of the micro-batch of `assignment` comes from: the epoch, and the place
    /// in that epoch's permutation. Every image is used once per epoch, and batches run on over its
    /// end.
    pub fn position(&self, assignment: Assignment, index: u32) -> (Epoch, u32) {
        let Config { replicas, batch_size, .. } = self.config;
        let batch = assignment.step.0 * u64::from(replicas) + u64::from(assignment.replica.0);
        let position = batch * u64::from(batch_size) + u64::from(index);
        let train = u64::from(self.dataset.train);
        (Epoch(position / train), (position % train) as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card() -> Card {
        let classes = ["a", "b", "c"].map(str::to_owned).to_vec();
        Card { classes, train: 10, val: 3, fingerprint: String::new() }
    }

    #[test]
    fn config_and_dataset_must_fit_together() {
        let refused = |change: &dyn Fn(&mut Config, &mut Card)| {
            let (mut config, mut card) = (Config::default(), card());
            change(&mut config, &mut card);
            Job::new(config, card).err().map(|error| error.to_string()).unwrap_or_default()
        };
        assert_eq!(refused(&|_, _| ()), "");
        assert_eq!(
            refused(&|config, _| config.replicas = 11),
            "replicas = 11 is more than the 10 training images: lower replicas or add images"
        );
        assert_eq!(
            refused(&|config, _| config.batch_size = 0),
            "batch_size = 0 must be an integer from 1 to 65536"
        );
        assert!(refused(&|_, card| card.val = 0).starts_with("the dataset has no image in val/"));
        assert!(
            refused(&|_, card| card.train = 0).starts_with("the dataset has no image in train/")
        );
        assert!(refused(&|_, card| card.classes.truncate(1)).contains("1 classes"));
        assert!(refused(&|_, card| card.classes.swap(0, 1)).contains("`b` comes before `a`"));
        assert!(refused(&|config, _| config.max_steps = 1 << 31).contains("2^32 epochs"));
    }
}
