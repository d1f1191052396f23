//! The worker as a program.

use std::process::ExitCode;

use clap::Parser;
use hw2_common::logging::{self, LevelFilter};
use hw2_worker::args::WorkerArgs;

/// A worker of hw2
#[derive(Parser)]
#[command(name = "hw2-worker", version)]
struct Cli {
    #[command(flatten)]
    args: WorkerArgs,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    logging::start(LevelFilter::INFO);
    hw2_worker::args::main(cli.args).unwrap_or_else(|error| {
        tracing::error!("{error:#}");
        ExitCode::FAILURE
    })
}
