//! Flags of the commands that read a trained network.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::Args;
use hw2_common::checkpoint::{Checkpoint, CheckpointError, Which, find};

/// Which checkpoint to read.
#[derive(Args, Clone, Debug)]
pub(crate) struct CheckpointArgs {
    /// Folder of the run
    #[arg(long, value_name = "DIR", default_value = "run")]
    pub(crate) checkpoint_dir: PathBuf,

    /// Which of its checkpoints, or any checkpoint file
    #[arg(long, value_name = "best|newest|FILE", default_value = "best")]
    pub(crate) checkpoint: Choice,
}

/// The value of `--checkpoint`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// Of the folder.
    Of(Which),
    /// Wherever it lies.
    File(PathBuf),
}

impl CheckpointArgs {
    /// Reads it.
    ///
    /// # Errors
    /// As [`find`].
    pub(crate) fn read(&self) -> Result<Checkpoint, CheckpointError> {
        match &self.checkpoint {
            Choice::Of(which) => find(&self.checkpoint_dir, *which),
            Choice::File(path) => find(path, Which::Best),
        }
    }
}

impl FromStr for Choice {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text {
            "best" => Self::Of(Which::Best),
            "newest" => Self::Of(Which::Newest),
            path => Self::File(Path::new(path).to_owned()),
        })
    }
}
