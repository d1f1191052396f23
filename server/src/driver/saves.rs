//! What is written while the run goes on: checkpoints, and replay bundles of failed contributions.

use std::sync::Arc;
use std::time::Instant;

use hw2_common::checkpoint::{Checkpoint, PartFile};
use hw2_common::job::Job;
use hw2_common::shard::Shard;
use hw2_common::state::{Progress, State};
use hw2_common::trace;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::coordinator::Replay;
use crate::folder::{RunFolder, Saved};
use crate::plane::Snapshot;
use crate::shard::SavedPart;

/// Files that are being written.
pub(super) struct Saves {
    folder: Arc<RunFolder>,
    writing: JoinSet<Written>,
}

/// What was written.
pub(super) enum Written {
    Checkpoint(Saved),
    Replay(Saved),
}

/// A checkpoint whose vectors are still shared with the run.
pub(super) struct ToWrite {
    pub(super) job: Job,
    pub(super) numeric_kind: Option<String>,
    pub(super) progress: Progress,
    pub(super) snapshot: Snapshot,
    /// Of the followers.
    pub(super) parts: Vec<(Shard, oneshot::Receiver<SavedPart>)>,
}

impl Saves {
    /// None yet, into `folder`.
    pub(super) fn new(folder: Arc<RunFolder>) -> Self {
        Self { folder, writing: JoinSet::new() }
    }

    /// Writes a checkpoint of the run.
    pub(super) fn checkpoint(&mut self, what: ToWrite) {
        let folder = Arc::clone(&self.folder);
        self.writing.spawn(async move {
            let to = Arc::clone(&folder);
            let save = move |checkpoint, parts: &[PartFile]| to.save(&checkpoint, parts);
            let saved = what.write(save).await;
            if saved.is_err() {
                // Of one that failed parts may be there.
                let _ = tokio::task::spawn_blocking(move || folder.remove_orphans()).await;
            }
            Written::Checkpoint(saved)
        });
    }

    /// Writes a bundle that replays what failed.
    pub(super) fn replay(&mut self, what: ToWrite, replay: Replay) {
        let folder = Arc::clone(&self.folder);
        self.writing.spawn(async move {
            let keep = move |checkpoint, parts: &[PartFile]| {
                folder.keep_replay(&checkpoint, parts, &replay)
            };
            Written::Replay(what.write(keep).await)
        });
    }

    /// The next one that is written; none while nothing is being.
    pub(super) async fn next(&mut self) -> Option<Written> {
        let written = self.writing.join_next().await?;
        Some(written.expect("what writes returns its errors"))
    }

    /// Whether nothing is being written.
    pub(super) fn is_empty(&self) -> bool {
        self.writing.is_empty()
    }
}

impl ToWrite {
    /// Waits for the parts of the followers; copies and writes on a thread of its own.
    async fn write(
        self,
        write: impl FnOnce(Checkpoint, &[PartFile]) -> Saved + Send + 'static,
    ) -> Saved {
        let began = Instant::now();
        let Self { job, numeric_kind, progress, snapshot, parts } = self;
        let mut written = Vec::new();
        for (shard, part) in parts {
            let part = part.await.unwrap_or_else(|_| Err("it is gone".into()));
            written.push(part.map_err(|error| format!("{shard}: {error}"))?);
        }
        let writing = tokio::task::spawn_blocking(move || {
            let state = State { progress, vectors: snapshot.vectors() };
            let step = state.progress.global_step;
            let saved = write(Checkpoint::new(job, numeric_kind, state), &written);
            trace::span("checkpoints", began, step, || "write".into());
            saved
        });
        writing.await.unwrap_or_else(|error| Err(format!("a checkpoint's writer failed: {error}")))
    }
}
