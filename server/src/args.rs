//! The server's command line, which is `hw2 server`'s too.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use hw2_common::address::Address;
use hw2_common::config::{Flag, Layers, environment, parse_setting};
use hw2_common::job::{Card, Job};
use hw2_common::shard::Shard;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{Clock, FollowerSetup, Listener, ServerSetup, follow, serve};

/// Serves a job's weights to its workers, until the run ends.
#[derive(Args, Clone, Debug)]
pub struct ServerArgs {
    /// Config file (TOML); `hw2 config` prints every key
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Lays the file's [profile.NAME] over it
    #[arg(long, value_name = "NAME")]
    pub profile: Option<String>,

    /// Where to listen: host:port or unix:PATH [key: listen]
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<String>,

    /// Dataset folder, a tar of one, or a dataset card (.json) [key: data]
    #[arg(long, value_name = "PATH")]
    pub data: Option<String>,

    /// Folder of the run; a run that is there goes on [key: run_dir]
    #[arg(long, value_name = "DIR")]
    pub run_dir: Option<String>,

    /// Which part of the vectors this server has, of a run on several: 0/COUNT decides for all and
    /// has the config; its followers are given --coordinator, and of all else only --listen, and
    /// --run-dir where they have the run's folder, which all share, elsewhere
    #[arg(long, value_name = "NUMBER/COUNT", default_value = "0/1", hide_default_value = true)]
    pub shard: Shard,

    /// Where the first of several servers listens
    #[arg(long, value_name = "ADDRESS")]
    pub coordinator: Option<Address>,

    /// Write what server and workers do when to a file for Perfetto (ui.perfetto.dev); it begins
    /// anew with each start of the server
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,

    /// Sets any config key
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_setting)]
    pub set: Vec<(String, String)>,
}

/// Flags that do not go together. The text names them and says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FlagsError(String);

/// Serves until the run ends, or until SIGTERM or SIGINT, when it saves the current step and stops
/// its workers.
///
/// # Errors
/// [`FlagsError`]; the config, the dataset or the address is of no use; or as [`serve`].
pub fn main(args: ServerArgs) -> anyhow::Result<()> {
    args.check()?;
    let mut config = args.layers().load()?.config;
    let address: Address = config.listen.parse()?;
    // Before the dataset, which may take minutes to read: the workers can connect meanwhile.
    let listener = Listener::bind(&address)?;
    if let Some(coordinator) = args.coordinator.clone() {
        return follow_coordinator(args, coordinator, listener);
    }
    // Workers, and what reads the run's checkpoints later, find it from any folder.
    let data = std::path::absolute(&config.data)
        .with_context(|| format!("dataset path `{}`", config.data))?;
    config.data = data.display().to_string();
    let card = Card::of(Path::new(&config.data))
        .context("the server cannot read the job's dataset (--data, config key `data`)")?;
    let job = Job::new(config, card)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(async {
        tracing::info!("listening on {}", listener.address()?);
        let shutdown = cancelled_by_signals()?;
        let clock = Clock::monotonic();
        let (trace, shards) = (args.trace, args.shard.count);
        serve(ServerSetup { job, listener, shutdown, clock, trace, shards }).await
    })?;
    let saved = match outcome.last_checkpoint {
        Some(path) => format!("the state is in {}", path.display()),
        None => "the run has not begun, and nothing is saved".into(),
    };
    tracing::info!(
        "{} at {}: {}; {saved}",
        if outcome.finished { "finished" } else { "stopped" },
        outcome.progress.global_step,
        outcome.reason,
    );
    Ok(())
}

/// Serves as a follower.
fn follow_coordinator(
    args: ServerArgs,
    coordinator: Address,
    listener: Listener,
) -> anyhow::Result<()> {
    let ServerArgs { shard, run_dir, .. } = args;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let reason = runtime.block_on(async {
        tracing::info!("{shard} listening on {}", listener.address()?);
        let (run_dir, shutdown) = (run_dir.map(PathBuf::from), cancelled_by_signals()?);
        follow(FollowerSetup { shard, coordinator, listener, run_dir, shutdown }).await
    })?;
    tracing::info!("{shard} ends: {reason}");
    Ok(())
}

impl ServerArgs {
    /// Whether the flags go together.
    fn check(&self) -> Result<(), FlagsError> {
        match (self.shard.is_coordinator(), &self.coordinator) {
            (true, None) => Ok(()),
            (false, Some(_)) => self.refuse_what_is_the_coordinators(),
            (true, Some(_)) => Err(FlagsError(format!(
                "--coordinator is for followers: {} is the coordinator",
                self.shard
            ))),
            (false, None) => Err(FlagsError(format!(
                "{} needs --coordinator: where the first server listens",
                self.shard
            ))),
        }
    }

    /// Refuses what a follower would not heed.
    fn refuse_what_is_the_coordinators(&self) -> Result<(), FlagsError> {
        let given = [
            ("--config", self.config.is_some()),
            ("--profile", self.profile.is_some()),
            ("--data", self.data.is_some()),
            ("--set", !self.set.is_empty()),
            ("--trace", self.trace.is_some()),
        ];
        match given.into_iter().find(|(_, is_given)| *is_given) {
            None => Ok(()),
            Some((flag, _)) => Err(FlagsError(format!(
                "{flag} is for the first server, from which {} has the job: leave it out here",
                self.shard
            ))),
        }
    }

    fn layers(&self) -> Layers {
        let named = [
            ("--listen", "listen", &self.listen),
            ("--data", "data", &self.data),
            ("--run-dir", "run_dir", &self.run_dir),
        ];
        Layers {
            file: self.config.clone(),
            profile: self.profile.clone(),
            environment: environment(),
            flags: Flag::given(&self.set, &named),
        }
    }
}

/// A token that SIGTERM or SIGINT cancels.
fn cancelled_by_signals() -> anyhow::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let token = CancellationToken::new();
    let cancelled = token.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        cancelled.cancel();
    });
    Ok(token)
}
