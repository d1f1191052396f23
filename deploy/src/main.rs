//! hw2: the front door.

mod cli;
mod cluster;
mod commands;
mod control;
mod job_args;
mod output;
mod summary;

fn main() -> std::process::ExitCode {
    cli::main()
}
