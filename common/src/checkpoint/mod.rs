//! Checkpoints: everything a run needs to go on, and everything a reader needs to use its weights.
//!
//! A run's folder holds files `checkpoint-00000300.safetensors`, named by their step. A file
//! appears under that name whole and durable, or not at all; `file.rs` describes its bytes. A run
//! on several servers has files `checkpoint-00000300.part-1-of-3.safetensors` beside each.

mod digest;
mod error;
mod file;
mod folder;
mod header;

use crate::config::Difference;
use crate::job::{BUILD, Job};
use crate::layout::ParamLayout;
use crate::state::State;

pub use error::CheckpointError;
pub use file::{PartFile, read_range, write_part};
pub use folder::{
    Which, best, file_name, find, list, newest_valid, prune, recover, remove_orphans,
};

/// A run at one committed step. Cloning shares the flat vectors.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// The program that made it; another one may compute other bits.
    pub build: String,
    /// Config and dataset.
    pub job: Job,
    /// Numeric kind of the worker whose result was the first to count; none before.
    pub numeric_kind: Option<String>,
    /// The flat vectors and counters.
    pub state: State,
}

impl Checkpoint {
    /// The run of `job` as this program has it.
    pub fn new(job: Job, numeric_kind: Option<String>, state: State) -> Self {
        Self { build: BUILD.into(), job, numeric_kind, state }
    }

    /// The layout of its vectors.
    pub fn layout(&self) -> ParamLayout {
        self.job.layout().expect("the vectors come from a network")
    }

    /// Whether a run of `job` may go on from here: same config of class run, same dataset.
    ///
    /// # Errors
    /// [`CheckpointError::OtherRun`] names everything that differs, with both values.
    pub fn check_job(&self, job: &Job) -> Result<(), CheckpointError> {
        let mut differences = self.job.config.run_differences(&job.config);
        let datasets = [
            (
                "dataset classes",
                self.job.dataset.classes.join(", "),
                job.dataset.classes.join(", "),
            ),
            ("training images", self.job.dataset.train.to_string(), job.dataset.train.to_string()),
            ("validation images", self.job.dataset.val.to_string(), job.dataset.val.to_string()),
            (
                "dataset fingerprint",
                self.job.dataset.fingerprint.clone(),
                job.dataset.fingerprint.clone(),
            ),
        ];
        for (key, mine, theirs) in datasets {
            if mine != theirs {
                differences.push(Difference { key: key.into(), mine, theirs });
            }
        }
        match differences.is_empty() {
            true => Ok(()),
            false => {
                let step = self.state.progress.global_step;
                Err(CheckpointError::OtherRun { step, differences })
            }
        }
    }
}

#[cfg(test)]
mod tests;
