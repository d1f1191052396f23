//! The worker as a program.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use hw2_common::logging::{self, LevelFilter};
use hw2_common::memory;
use hw2_worker::args::WorkerArgs;
use hw2_worker::device_args::NoDevice;

/// A worker of hw2
#[derive(Parser)]
#[command(name = "hw2-worker", version)]
struct Cli {
    #[command(flatten)]
    args: WorkerArgs,
}

fn main() -> ExitCode {
    memory::use_huge_pages();
    let cli = Cli::parse();
    logging::start(LevelFilter::INFO);
    hw2_worker::args::main(cli.args, &[]).unwrap_or_else(|error| {
        tracing::error!("{error:#}");
        // As clap's own, for flags that ask for what is not there.
        if error.is::<NoDevice>() { ExitCode::from(2) } else { ExitCode::FAILURE }
    })
}
