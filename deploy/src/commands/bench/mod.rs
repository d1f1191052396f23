//! `hw2 bench`: this machine's figures, the unit of every later comparison.

mod input;
mod plan;
mod raw;
mod step;
mod wire;

use clap::{Args, Subcommand};

/// Measures this machine: a training step, reading images, parameters over the wire; plans a GPU's
#[derive(Args, Debug)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Step(step::StepArgs),
    Input(input::InputArgs),
    Plan(plan::PlanArgs),
    Wire(wire::WireArgs),
    #[command(hide = true)]
    WireWorker(wire::WorkerArgs),
}

/// Measures and prints.
pub(crate) fn run(args: &BenchArgs) -> anyhow::Result<()> {
    match &args.what {
        What::Step(args) => step::run(args),
        What::Input(args) => input::run(args),
        What::Plan(args) => plan::run(args),
        What::Wire(args) => wire::run(args),
        What::WireWorker(args) => wire::work(args),
    }
}
