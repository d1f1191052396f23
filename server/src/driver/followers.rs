//! What followers report.

use std::collections::HashMap;

use hw2_common::shard::Shard;
use tokio::sync::{mpsc, oneshot};

use super::Driver;
use crate::handle::Handle;
use crate::shard::{FollowerLink, FromFollower, SavedPart, ToFollower};

/// A follower, as its coordinator knows it.
pub(super) struct Led {
    pub(super) shard: Shard,
    pub(super) orders: mpsc::UnboundedSender<ToFollower>,
    /// Its parts of checkpoints that are being written.
    pub(super) saving: HashMap<u64, oneshot::Sender<SavedPart>>,
}

impl Driver {
    /// Followers take part, whose state is that of the coordinator too.
    pub(crate) fn add(&mut self, followers: Vec<FollowerLink>, handle: &Handle<Self>) {
        for (place, FollowerLink { shard, orders, mut reports }) in
            followers.into_iter().enumerate()
        {
            self.followers.push(Led { shard, orders, saving: HashMap::new() });
            let handle = handle.clone();
            tokio::spawn(async move {
                while let Some(report) = reports.recv().await {
                    handle.post(move |driver| driver.reported(place, report));
                }
                handle.post(move |driver| driver.lost = Some(shard));
            });
        }
    }

    /// The follower in `place` says something.
    fn reported(&mut self, place: usize, report: FromFollower) {
        let now = self.now();
        let follower = &mut self.followers[place];
        let shard = follower.shard;
        match report {
            FromFollower::Ready | FromFollower::Unfit(_) => {}
            FromFollower::PushBegins { id, worker, assignment } => {
                let answer = self.coordinator.admit(now, worker, assignment);
                let _ = follower.orders.send(ToFollower::Admission { id, answer });
            }
            FromFollower::Received(share) => {
                let (worker, assignment) = (share.worker, share.assignment);
                if let Err(refusal) = self.coordinator.receive(now, share) {
                    let assignment = format!("{assignment} from {}", self.coordinator.name(worker));
                    tracing::warn!("{assignment} does not count: {}", refusal.message());
                }
            }
            FromFollower::PushFailed(worker, assignment) => self.push_failed(worker, assignment),
            FromFollower::UpdateMade if self.coordinator.awaits_update_of(shard.index) => {
                self.coordinator.update_made(now, shard.index);
            }
            FromFollower::UpdateMade => {
                tracing::warn!("{shard} has made an update that nobody ordered");
                self.lost = Some(shard);
            }
            FromFollower::Saved { id, saved } => {
                if let Some(waiting) = follower.saving.remove(&id) {
                    // Who has given the checkpoint up does not need its parts.
                    let _ = waiting.send(saved);
                }
            }
            FromFollower::Leaving(reason) => {
                self.coordinator.drain(now, &format!("{shard} was asked to stop: {reason}"));
            }
        }
    }
}
