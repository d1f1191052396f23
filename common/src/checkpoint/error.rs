//! What can be wrong with a checkpoint, in words for the person who has to act.

use std::path::{Path, PathBuf};

use crate::config::Difference;
use crate::ids::GlobalStep;

/// Why a checkpoint cannot be written, read or used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The file system refused.
    #[error("cannot {action} {path}: {source}", path = path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The answer.
        source: std::io::Error,
    },
    /// The bytes are not those that were written.
    #[error(
        "{path} is damaged, or not a checkpoint of hw2: {what}; use another checkpoint, or copy \
         this one again from where it is whole",
        path = path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the values.
        what: String,
    },
    /// The bytes are as written, but by a program that writes other things than this one reads.
    #[error(
        "{path} is whole, but this program ({build}) cannot use it: {what}; use the program that \
         wrote it",
        path = path.display(),
        build = crate::job::BUILD
    )]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What is not understood, with the values.
        what: String,
    },
    /// It belongs to another job.
    #[error(
        "the checkpoint of {step} belongs to another run (here: the checkpoint, there: the job): \
         {}; give the run its own config and data, or the new job a run folder of its own",
        list(.differences)
    )]
    OtherRun {
        /// Its step.
        step: GlobalStep,
        /// Everything that differs; the checkpoint's value comes first.
        differences: Vec<Difference>,
    },
    /// A folder without checkpoints.
    #[error(
        "{dir} holds no checkpoint (a file like {example}): name the run folder or the file of a \
         checkpoint",
        dir = dir.display(),
        example = super::file_name(GlobalStep(300))
    )]
    NoCheckpoint {
        /// The folder.
        dir: PathBuf,
    },
    /// A folder with checkpoints, each of them damaged.
    #[error(
        "each of the {count} checkpoints in {dir} is damaged, the newest thus: {newest}; to begin \
         the run again at step 0, move them away",
        dir = dir.display()
    )]
    AllDamaged {
        /// The folder.
        dir: PathBuf,
        /// How many there are.
        count: usize,
        /// Of the newest.
        newest: Box<CheckpointError>,
    },
}

impl CheckpointError {
    /// For `map_err`: what was tried on which file or folder.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }

    /// Whether the file was not there.
    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
    }
}

fn list(differences: &[Difference]) -> String {
    let texts: Vec<String> = differences.iter().map(ToString::to_string).collect();
    texts.join("; ")
}
