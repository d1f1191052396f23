//! hw2: the front door.

#![forbid(unsafe_code)]

mod checkpoint_args;
mod cli;
mod cluster;
mod commands;
mod compute_args;
mod control;
mod job_args;
mod local_run;
mod output;
mod stage;
mod summary;

fn main() -> std::process::ExitCode {
    cli::main()
}
