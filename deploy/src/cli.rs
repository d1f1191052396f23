//! The command line as a whole: which command runs, and what the exit code says.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use hw2_common::config::ConfigError;

use crate::commands::{config, digest, split, status};
use crate::output;

const FAILURE: u8 = 1;
/// As clap's own.
const USAGE: u8 = 2;

/// Trains image classifiers on whatever machines there are: one parameter server, any number of
/// workers, one result
#[derive(Debug, Parser)]
#[command(name = "hw2", version, arg_required_else_help = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Config(config::ConfigArgs),
    Split(split::SplitArgs),
    Status(status::StatusArgs),
    Digest(digest::DigestArgs),
}

/// Parses the command line and runs the command. Exit code 0 is success, 1 failure, 2 a command line
/// or config that means nothing.
pub(crate) fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Config(args) => config::run(&args),
        Command::Split(args) => split::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Digest(args) => digest::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::error(&error);
            ExitCode::from(if error.is::<ConfigError>() { USAGE } else { FAILURE })
        }
    }
}
