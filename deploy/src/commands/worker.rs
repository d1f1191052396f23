//! `hw2 worker`: this program as a worker.

use std::process::ExitCode;

use clap::Args;

/// Computes for a parameter server until the run ends, as hw2-worker does
#[derive(Args, Debug)]
pub(crate) struct WorkerCommand {
    #[command(flatten)]
    worker: hw2_worker::args::WorkerArgs,
}

/// Works until the run ends.
pub(crate) fn run(args: WorkerCommand) -> anyhow::Result<ExitCode> {
    hw2_worker::args::main(args.worker, &["worker"])
}
