//! A server that is not the coordinator: it enlists with it, term after term.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use hw2_common::address::Address;
use hw2_common::shard::Shard;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use super::FromFollower;
use super::follower::{End, begin};
use crate::listener::Listener;
use crate::rpc::{Desk, Edge, Enlisted, enlist};

/// Pause between two attempts to enlist.
const RETRY: Duration = Duration::from_millis(300);
/// Time without a coordinator after which this server gives up.
const PATIENCE: Duration = Duration::from_secs(300);
/// Time between two words about a coordinator that is not there.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);

/// Everything that a follower is given from outside.
#[derive(Debug)]
pub struct FollowerSetup {
    /// Which part.
    pub shard: Shard,
    /// Where the first server listens.
    pub coordinator: Address,
    /// Already bound.
    pub listener: Listener,
    /// The run's folder, where this machine has it elsewhere than the coordinator.
    pub run_dir: Option<PathBuf>,
    /// Cancelled to end the server, and with it the run, in good order.
    pub shutdown: CancellationToken,
}

/// Serves its part until the coordinator says that it is over, and why.
///
/// # Errors
/// The coordinator refuses this server, or it does not see the run's folder.
pub async fn follow(setup: FollowerSetup) -> anyhow::Result<String> {
    let FollowerSetup { shard, coordinator, listener, run_dir, shutdown } = setup;
    let desk = Desk::closed(&waiting(shard));
    let edge = Edge::start(listener, &desk, None).context("cannot serve connections")?;
    let mut complained: Option<Instant> = None;
    let mut alone_since = Instant::now();
    let reason = loop {
        let enlisted = tokio::select! {
            enlisted = enlist(&coordinator, shard) => enlisted,
            () = shutdown.cancelled() => break "it was asked to stop".to_owned(),
        };
        match enlisted {
            Ok(Enlisted { welcome, reports, mut link, spans }) => {
                complained = None;
                let dir = run_dir.as_deref();
                let begun = tokio::select! {
                    begun = begin(shard, welcome, dir, &desk, (reports.clone(), spans)) => begun,
                    () = shutdown.cancelled() => break "it was asked to stop".to_owned(),
                };
                let end = match begun {
                    Ok((follower, commands, grace)) => {
                        follower.run(commands, link, &shutdown, grace).await
                    }
                    Err(error) => {
                        let _ = reports.send(FromFollower::Unfit(format!("{error:#}")));
                        // If the term ended meanwhile, that may be why.
                        match link.next().await {
                            Ok(Some(_)) => return Err(error),
                            Ok(None) | Err(_) => End::Over(format!("{error:#}")),
                        }
                    }
                };
                desk.close(waiting(shard));
                alone_since = Instant::now();
                match end {
                    End::Stop(reason) => break reason,
                    End::Over(why) => tracing::warn!("{shard}: the term is over: {why}"),
                }
            }
            Err(status) if is_final(&status) => {
                bail!("the coordinator at {coordinator} refuses {shard}: {}", status.message());
            }
            Err(status) if alone_since.elapsed() >= PATIENCE => bail!(
                "no coordinator at {coordinator} for {} s ({}): start the first server there, or \
                 correct --coordinator",
                PATIENCE.as_secs(),
                status.message()
            ),
            Err(status) => {
                if complained.is_none_or(|before| before.elapsed() >= COMPLAINT_INTERVAL) {
                    complained = Some(Instant::now());
                    let why = status.message();
                    tracing::warn!("{shard} waits for the coordinator at {coordinator}: {why}");
                }
                tokio::select! {
                    () = tokio::time::sleep(RETRY) => {}
                    () = shutdown.cancelled() => {}
                }
            }
        }
    };
    edge.stop().await;
    Ok(reason)
}

fn waiting(shard: Shard) -> String {
    format!("{shard} waits for the coordinator")
}

/// Whether trying again is of no use.
fn is_final(status: &Status) -> bool {
    matches!(status.code(), Code::FailedPrecondition | Code::InvalidArgument | Code::Unimplemented)
}
