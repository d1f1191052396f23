//! hw2: the front door.

mod cli;
mod cluster;
mod commands;
mod control;
mod output;

fn main() -> std::process::ExitCode {
    cli::main()
}
