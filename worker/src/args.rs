//! The worker's command line, which is `hw2 worker`'s too.

use std::path::PathBuf;

use clap::Args;
use hw2_common::address::Address;

/// Computes for a parameter server until the run ends. The job's config comes from the server.
#[derive(Args, Clone, Debug)]
pub struct WorkerArgs {
    /// The server: host:port or unix:PATH
    #[arg(long, value_name = "ADDRESS")]
    pub ps: Address,

    /// What to compute on
    #[arg(long, default_value = "auto", value_name = "auto|cpu")]
    pub device: crate::device::Choice,

    /// The dataset, where this machine has it elsewhere than the server
    #[arg(long, value_name = "PATH")]
    pub data: Option<PathBuf>,

    /// Compute threads of a CPU device [default: the job's `threads`, or one per core]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,

    /// Time without a server after which the worker gives up
    #[arg(long, default_value_t = 300, value_name = "SECONDS")]
    pub patience_s: u64,
}
