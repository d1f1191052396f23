//! `hw2 train`: a whole local cluster, from the first step to the last.

use std::path::Path;
use std::process::ExitCode;

use clap::Args;

use crate::job_args::{JobArgs, load_for};
use crate::local_run::{ClusterArgs, refuse_unused, refuse_used};
use crate::output;

/// Trains on this machine: starts a server and workers, and shows their progress
///
/// Ctrl-C stops the run with a checkpoint, and --resume goes on from there, to the same bits as if
/// it had never stopped. A second Ctrl-C kills everything.
#[derive(Args, Debug)]
pub(crate) struct TrainArgs {
    #[command(flatten)]
    job: JobArgs,

    #[command(flatten)]
    cluster: ClusterArgs,

    /// Go on with the run in the folder, with its own config unless --config is given
    #[arg(long)]
    resume: bool,

    /// Print the summary as one line of JSON
    #[arg(long)]
    json: bool,
}

/// Trains and prints the summary.
pub(crate) fn run(args: &TrainArgs) -> anyhow::Result<ExitCode> {
    let layers = if args.resume { args.job.resume_layers()? } else { args.job.layers() };
    let workers = args.cluster.workers_or(1);
    let (resolved, replicas_follow) = load_for(workers, layers)?;
    if replicas_follow {
        output::note(&format!(
            "replicas = {workers}, as there are {workers} workers and nothing sets it: this is now \
             part of the run's config"
        ));
    }
    let run_dir = Path::new(&resolved.config.run_dir);
    match args.resume {
        true => refuse_unused(run_dir)?,
        false => refuse_used(run_dir)?,
    }
    let run = args.cluster.local_run(resolved.config, workers)?;
    let summary = run.run()?;
    output::report(&summary, args.json)?;
    Ok(summary.exit_code())
}
