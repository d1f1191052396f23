//! The worker's command line, which is `hw2 worker`'s too.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;
use clap::Args;
use hw2_common::address::Addresses;
use hw2_common::child::{EXIT_EARLY, ONE_REQUEST};
use hw2_common::lifeline;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::device_args::DeviceArgs;
use crate::each_gpu;
use crate::train::Ended;

/// Computes for a parameter server until the run ends. The job's config comes from the server.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct WorkerArgs {
    /// The server, host:port or unix:PATH; of several, all in the order of their shards, separated
    /// by commas
    #[arg(long, value_name = "ADDRESS")]
    pub ps: Addresses,

    /// The device.
    #[command(flatten)]
    pub device: DeviceArgs,

    /// The dataset, where this machine has it elsewhere than the server
    #[arg(long, value_name = "PATH")]
    pub data: Option<PathBuf>,

    /// Compute threads of a CPU device [default: the job's `threads`, or one per core]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,

    /// Time without a server after which the worker gives up
    #[arg(long, default_value_t = 300, value_name = "SECONDS")]
    pub patience_s: u64,

    /// Leave when stdin ends
    #[arg(long, hide = true)]
    pub lifeline: bool,
}

impl WorkerArgs {
    /// The same for each of the workers that are to be: one for each GPU, or just one.
    fn each(&self) -> Vec<Self> {
        let one = |device| Self { device, lifeline: true, ..self.clone() };
        self.device.each().into_iter().map(one).collect()
    }

    /// The same as flags for another process.
    pub(crate) fn flags(&self) -> Vec<OsString> {
        let Self { ps, device, data, threads, patience_s, lifeline } = self;
        let mut flags = device.flags();
        let mut add = |flag: &str, value: OsString| flags.extend([flag.into(), value]);
        add("--ps", ps.to_string().into());
        add("--patience-s", patience_s.to_string().into());
        data.iter().for_each(|path| add("--data", path.into()));
        threads.iter().for_each(|threads| add("--threads", threads.to_string().into()));
        flags.extend(lifeline.then(|| "--lifeline".into()));
        flags
    }
}

/// Works until the run ends, or until SIGTERM or SIGINT, when the worker gives its leases back.
/// Several GPUs are a process each; `subcommand` is what makes this program a worker.
///
/// # Errors
/// [`NoDevice`](crate::device_args::NoDevice), and as [`crate::train::run`].
pub fn main(args: WorkerArgs, subcommand: &[&str]) -> anyhow::Result<ExitCode> {
    if args.lifeline {
        lifeline::hold().context("cannot watch the parent process")?;
    }
    let each = args.each();
    if each.len() > 1 {
        args.device.check()?;
        return each_gpu::run(&each, subcommand);
    }
    let stop = CancellationToken::new();
    let _signals = signals(stop.clone())?;
    args.device.check()?;
    Ok(match crate::train::run(&args, &stop)? {
        Ended::RunFinished => ExitCode::SUCCESS,
        Ended::Early => ExitCode::from(EXIT_EARLY),
    })
}

/// A thread that cancels `stop` when the process is asked to end, and ends it when it is asked again.
fn signals(stop: CancellationToken) -> anyhow::Result<std::thread::JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let context = runtime.enter();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    drop(context);
    let thread = std::thread::Builder::new().name("hw2-signals".into());
    Ok(thread.spawn(move || {
        let mut asked = || {
            runtime.block_on(async {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
            });
        };
        asked();
        let first = Instant::now();
        tracing::info!("asked to stop (once more to end at once)");
        stop.cancel();
        asked();
        while first.elapsed() < ONE_REQUEST {
            asked();
        }
        tracing::error!("asked again to stop: ending at once");
        lifeline::end_at_once();
    })?)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: WorkerArgs,
    }

    fn parse(line: &[OsString]) -> WorkerArgs {
        let line = std::iter::once("hw2-worker".into()).chain(line.iter().cloned());
        Line::try_parse_from(line).unwrap().args
    }

    #[test]
    fn each_gpu_has_a_worker_with_the_same_flags_otherwise() {
        let line = "--ps unix:/run/ps.sock --gpu 1,0 --cuda-lib-dir /cuda --data d --threads 3 \
                    --patience-s 7";
        let line: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        let args = parse(&line);
        assert_eq!(parse(&args.flags()), args);
        let each: Vec<WorkerArgs> = args.each().iter().map(|one| parse(&one.flags())).collect();
        let expected = ["1", "0"].map(|gpu| {
            let device = DeviceArgs { gpu: Some(gpu.parse().unwrap()), ..args.device.clone() };
            WorkerArgs { device, lifeline: true, ..args.clone() }
        });
        assert_eq!(each, expected);
    }
}
