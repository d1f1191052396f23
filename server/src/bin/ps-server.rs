//! The parameter server as a program.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use hw2_common::config::ConfigError;
use hw2_common::logging::{self, LevelFilter};
use hw2_common::memory;
use hw2_server::args::{self, FlagsError, ServerArgs};

/// The parameter server: all weights of a run, and who computes what.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(flatten)]
    server: ServerArgs,
}

fn main() -> ExitCode {
    memory::use_huge_pages();
    let cli = Cli::parse();
    logging::start(LevelFilter::INFO);
    match args::main(cli.server) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            // As clap's own, for flags or a config that mean nothing.
            let is_usage = error.is::<ConfigError>() || error.is::<FlagsError>();
            if is_usage { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}
