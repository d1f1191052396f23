//! The parameter server as a program.

use clap::Parser;
use hw2_common::logging::{self, LevelFilter};
use hw2_server::args::{self, ServerArgs};

/// The parameter server: all weights of a run, and who computes what.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(flatten)]
    server: ServerArgs,
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    logging::start(LevelFilter::INFO);
    args::main(cli.server)
}
