//! The parameter server as a program.

use clap::Parser;
use hw2_server::args::{self, ServerArgs};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// The parameter server: all weights of a run, and who computes what.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(flatten)]
    server: ServerArgs,
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let filter = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into());
    tracing_subscriber::fmt()
        .with_env_filter(filter.from_env_lossy())
        .with_writer(std::io::stderr)
        .init();
    args::main(cli.server)
}
