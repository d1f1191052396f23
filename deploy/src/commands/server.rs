//! `hw2 server`: this program as the parameter server.

use anyhow::Context;
use clap::Args;
use hw2_common::lifeline;

/// Serves a job's weights to its workers, as ps-server does
#[derive(Args, Debug)]
pub(crate) struct ServerCommand {
    #[command(flatten)]
    server: hw2_server::args::ServerArgs,

    /// Drain when stdin ends
    #[arg(long, hide = true)]
    lifeline: bool,
}

/// Serves until the run ends.
pub(crate) fn run(args: ServerCommand) -> anyhow::Result<()> {
    if args.lifeline {
        lifeline::hold().context("cannot watch the parent process")?;
    }
    hw2_server::args::main(args.server)
}
