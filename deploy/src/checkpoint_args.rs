//! Flags of the commands that read a trained network.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Context;
use clap::Args;
use hw2_common::checkpoint::{Checkpoint, Which, find};

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
    /// As [`find`], with the flag to change.
    pub(crate) fn read(&self) -> anyhow::Result<Checkpoint> {
        match &self.checkpoint {
            Choice::Of(which) => find(&self.checkpoint_dir, *which)
                .context("no network to read (--checkpoint-dir names the folder of the run)"),
            Choice::File(path) => find(path, Which::Best)
                .context("no network to read (--checkpoint names best, newest or a file)"),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_is_named_by_what_it_is_or_where_it_lies() {
        assert_eq!("best".parse(), Ok(Choice::Of(Which::Best)));
        assert_eq!("newest".parse(), Ok(Choice::Of(Which::Newest)));
        assert_eq!("a/best".parse(), Ok(Choice::File("a/best".into())));
    }

    #[test]
    fn the_flag_to_change_is_part_of_the_error() {
        let of = |checkpoint: &str| {
            let (checkpoint_dir, checkpoint) = ("/nonexistent".into(), checkpoint.parse().unwrap());
            let error = CheckpointArgs { checkpoint_dir, checkpoint }.read().unwrap_err();
            format!("{error:#}")
        };
        assert!(of("best").contains("--checkpoint-dir names"), "{}", of("best"));
        assert!(of("best").contains("/nonexistent"), "{}", of("best"));
        assert!(of("/gone.safetensors").contains("--checkpoint names"));
    }
}
