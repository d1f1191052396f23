//! The worker's command line, which is `hw2 worker`'s too.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use hw2_common::address::Address;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::device_args::DeviceArgs;
use crate::train::Ended;

/// Computes for a parameter server until the run ends. The job's config comes from the server.
#[derive(Args, Clone, Debug)]
pub struct WorkerArgs {
    /// The server: host:port or unix:PATH
    #[arg(long, value_name = "ADDRESS")]
    pub ps: Address,

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
}

/// Exit code of a worker that left in good order before the run was over (sysexits' EX_TEMPFAIL), so
/// that whoever started it can tell.
pub const EXIT_EARLY: u8 = 75;

/// Works until the run ends, or until SIGTERM or SIGINT, when the worker gives its leases back.
///
/// # Errors
/// [`NoDevice`](crate::device_args::NoDevice), and as [`crate::train::run`].
pub fn main(args: WorkerArgs) -> anyhow::Result<ExitCode> {
    args.device.check()?;
    let stop = CancellationToken::new();
    let _signals = signals(stop.clone())?;
    Ok(match crate::train::run(&args, &stop)? {
        Ended::RunFinished => ExitCode::SUCCESS,
        Ended::Early => ExitCode::from(EXIT_EARLY),
    })
}

/// A thread that cancels `stop` when the process is asked to end.
fn signals(stop: CancellationToken) -> anyhow::Result<std::thread::JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let context = runtime.enter();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    drop(context);
    let thread = std::thread::Builder::new().name("hw2-signals".into());
    Ok(thread.spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        });
        stop.cancel();
    })?)
}
