//! The command line as a whole: which command runs, and what the exit code says.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use hw2_common::config::ConfigError;
use hw2_common::logging::{self, LevelFilter};
use hw2_common::memory;
use hw2_server::args::FlagsError;
use hw2_worker::device_args::NoDevice;

use crate::commands::{
    bench, config, demo, digest, doctor, eval, predict, server, split, status, train, verify,
    worker,
};
use crate::output;

const FAILURE: u8 = 1;
/// As clap's own.
const USAGE: u8 = 2;

const AFTER_HELP: &str = "\
First steps:
  hw2 demo                                     train on bundled data, a few minutes
  hw2 split PHOTOS data                        PHOTOS holds one folder for each class
  hw2 train --data data --workers 2            a whole cluster on this machine
  hw2 eval                                     precision of the best checkpoint in run/
  hw2 predict PHOTO.jpg                        what is in it

Many machines:
  hw2 server --config job.toml --listen 0.0.0.0:50051
  hw2 worker --ps HOST:50051                   as many as there are, at any time

Exit code: 0 success, 1 failure, 2 a command line or config that means nothing, or a GPU that is
not there, 75 a run that was stopped, or a worker that left, in good order before the run was over.";

/// Trains image classifiers on whatever machines there are: one parameter server, any number of
/// workers, one result
#[derive(Debug, Parser)]
#[command(name = "hw2", version, arg_required_else_help = true, max_term_width = 100)]
#[command(after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::DemoArgs),
    Split(split::SplitArgs),
    Train(train::TrainArgs),
    Eval(eval::EvalArgs),
    Predict(predict::PredictArgs),
    Server(server::ServerCommand),
    Worker(worker::WorkerCommand),
    Status(status::StatusArgs),
    Config(config::ConfigArgs),
    Digest(digest::DigestArgs),
    Verify(verify::VerifyArgs),
    Doctor(doctor::DoctorArgs),
    Bench(bench::BenchArgs),
}

/// Parses the command line and runs the command. Exit code 0 is success, 1 failure, 2 a command
/// line or config that means nothing, or a GPU that is not there.
pub(crate) fn main() -> ExitCode {
    let command = Cli::parse().command;
    if matches!(command, Command::Server(_) | Command::Worker(_)) {
        memory::use_huge_pages();
    }
    logging::start(match command {
        Command::Server(_) | Command::Worker(_) => LevelFilter::INFO,
        _ => LevelFilter::WARN,
    });
    run(command).unwrap_or_else(|error| {
        output::error(&error);
        let is_usage =
            error.is::<ConfigError>() || error.is::<NoDevice>() || error.is::<FlagsError>();
        ExitCode::from(if is_usage { USAGE } else { FAILURE })
    })
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    let done = match command {
        Command::Demo(args) => return demo::run(&args),
        Command::Split(args) => split::run(&args),
        Command::Train(args) => return train::run(&args),
        Command::Eval(args) => eval::run(&args),
        Command::Predict(args) => predict::run(&args),
        Command::Server(args) => server::run(args),
        Command::Worker(args) => return worker::run(args),
        Command::Status(args) => status::run(&args),
        Command::Config(args) => config::run(&args),
        Command::Digest(args) => digest::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Bench(args) => bench::run(&args),
    };
    done.map(|()| ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_says_what_it_does() {
        for command in Cli::command().get_subcommands() {
            assert!(command.get_about().is_some(), "{} says nothing", command.get_name());
        }
    }
}
