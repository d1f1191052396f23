//! `hw2 bench`: this machine's figures, the unit of every later comparison.

mod wire;

use clap::{Args, Subcommand};

/// Measures this machine: a training step, reading images, parameters over the wire
#[derive(Args, Debug)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Wire(wire::WireArgs),
    #[command(hide = true)]
    WireWorker(wire::WorkerArgs),
}

/// Measures and prints.
pub(crate) fn run(args: &BenchArgs) -> anyhow::Result<()> {
    match &args.what {
        What::Wire(args) => wire::run(args),
        What::WireWorker(args) => wire::work(args),
    }
}
