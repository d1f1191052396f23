//! The command line as a whole: which command runs, and what the exit code says.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::commands::{digest, split, status};
use crate::output;

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
    Split(split::SplitArgs),
    Status(status::StatusArgs),
    Digest(digest::DigestArgs),
}

/// Parses the command line and runs the command. Exit code 0 is success, 1 failure, 2 a command line
/// that means nothing.
pub(crate) fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Split(args) => split::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Digest(args) => digest::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::error(&error);
            ExitCode::FAILURE
        }
    }
}
