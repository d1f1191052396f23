//! `hw2 digest`: one checksum over everything in a checkpoint that decides the run's future.

use std::path::PathBuf;

use clap::Args;
use hw2_common::checkpoint::{Which, find};
use serde::Serialize;

use crate::output::{self, Report};

/// Prints the SHA-256 over a checkpoint's tensors and the state that decides the future
///
/// Equal digests mean equal runs from there on. Of a run folder, its newest checkpoint.
#[derive(Args, Debug)]
pub(crate) struct DigestArgs {
    /// Checkpoint file or run folder
    #[arg(value_name = "CHECKPOINT")]
    checkpoint: PathBuf,

    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

/// Reads the checkpoint and prints its digest.
pub(crate) fn run(args: &DigestArgs) -> anyhow::Result<()> {
    let checkpoint = find(&args.checkpoint, Which::Newest)?;
    let step = checkpoint.state.progress.global_step.0;
    output::report(&Digest { digest: checkpoint.digest(), step }, args.json)
}

#[derive(Debug, Serialize)]
struct Digest {
    digest: String,
    step: u64,
}

impl Report for Digest {
    fn text(&self) -> String {
        format!("{}  step {}", self.digest, self.step)
    }
}
