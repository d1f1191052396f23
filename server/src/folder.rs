//! The run's folder: checkpoints, curve, config, and the bundles that replay what was not finite.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::JoinHandle;

use anyhow::{Context, bail};
use hw2_common::checkpoint::{self, Checkpoint, PartFile};
use hw2_common::ids::{Assignment, GlobalStep};
use hw2_common::job::{BUILD, Job};
use hw2_common::state::State;

use crate::coordinator::Replay;
use crate::curve::{Curve, Line};

const LOCK_FILE: &str = "server.lock";
/// The run's config in its folder.
pub const CONFIG_FILE: &str = "config.toml";
/// Folder of the bundles that replay contributions.
const REPLAYS: &str = "replay";
/// Bundles that a run keeps: where every step is not finite, they would fill the disk.
const REPLAYS_MAX: usize = 8;

/// A folder to which no other run writes, and the followers of this one only their parts.
pub(crate) struct RunFolder {
    path: PathBuf,
    keep_checkpoints: u32,
    /// Held for as long as the server lives.
    lock: File,
    curve: CurveThread,
}

/// Where a run goes on.
pub(crate) struct Opened {
    pub(crate) folder: RunFolder,
    /// The newest valid checkpoint, or the initial state.
    pub(crate) checkpoint: Checkpoint,
    /// The file it comes from; none for a fresh run.
    pub(crate) resumed_from: Option<PathBuf>,
    /// The last step that an earlier server committed, as far as the curve knows.
    pub(crate) committed_before: GlobalStep,
}

impl RunFolder {
    /// Opens the folder of a run, or makes it: finds where to go on, and cuts the curve back to
    /// there.
    ///
    /// # Errors
    /// Another server has it; the checkpoint is of another run (all differences are named); the
    /// file system refuses.
    pub(crate) fn open(path: &Path, job: &Job) -> anyhow::Result<Opened> {
        let name = path.display();
        fs::create_dir_all(path).with_context(|| format!("cannot create the run folder {name}"))?;
        let lock = lock(path)?;
        let found = checkpoint::recover(path)?;
        let resumed_from = found
            .as_ref()
            .map(|found| path.join(checkpoint::file_name(found.state.progress.global_step)));
        let checkpoint = match found {
            Some(found) => resume(found, job)?,
            None => {
                let state = State::initial(&job.config, &job.layout()?);
                Checkpoint::new(job.clone(), None, state)
            }
        };
        let progress = &checkpoint.state.progress;
        let step = progress.global_step;
        let evaluated = progress.last_evaluation.is_some_and(|last| last.step == step);
        let (curve, committed_before) = Curve::resume(path, step, evaluated)
            .with_context(|| format!("the curve in the run folder {name}"))?;
        write_config(path, job).with_context(|| format!("cannot write the config into {name}"))?;
        let folder = Self {
            path: path.to_owned(),
            keep_checkpoints: job.config.cluster.keep_checkpoints,
            lock,
            curve: CurveThread::start(curve)?,
        };
        Ok(Opened { folder, checkpoint, resumed_from, committed_before })
    }

    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Adds a line to the curve, without waiting for the disk.
    pub(crate) fn record(&self, line: Line) {
        self.curve.add(line);
    }

    /// Writes a checkpoint, whose other `parts` are there, and removes those that are too old. It
    /// may take seconds.
    ///
    /// # Errors
    /// The file system refuses, or the folder is another one now; nothing half-written stays.
    pub(crate) fn save(&self, checkpoint: &Checkpoint, parts: &[PartFile]) -> Saved {
        self.check_is_ours()?;
        let path = checkpoint.write_with(&self.path, parts).map_err(|error| error.to_string())?;
        let progress = &checkpoint.state.progress;
        if let Err(error) = checkpoint::prune(&self.path, progress, self.keep_checkpoints) {
            tracing::warn!("old checkpoints stay: {error}");
        }
        Ok(path)
    }

    /// Removes parts of checkpoints that were not completed.
    pub(crate) fn remove_orphans(&self) {
        if let Err(error) = checkpoint::remove_orphans(&self.path) {
            tracing::warn!("parts of a checkpoint stay: {error}");
        }
    }

    /// Which folder in this one is for the bundle that replays a contribution.
    ///
    /// # Errors
    /// There are many already.
    pub(crate) fn replay_folder(&self, assignment: Assignment) -> Result<String, String> {
        let (step, replica) = (assignment.step.0, assignment.replica.0);
        let name = format!("{REPLAYS}/step-{step}-replica-{replica}");
        let replays = self.path.join(REPLAYS);
        let kept = fs::read_dir(&replays).map_or(0, Iterator::count);
        if kept >= REPLAYS_MAX && !self.path.join(&name).exists() {
            return Err(format!("{} holds {kept} already", replays.display()));
        }
        Ok(name)
    }

    /// Writes a bundle that replays a contribution: the state whose weights were used, and which
    /// images they met. The other `parts` of the state are there.
    ///
    /// # Errors
    /// The file system refuses, or there are many already.
    pub(crate) fn keep_replay(
        &self,
        checkpoint: &Checkpoint,
        parts: &[PartFile],
        replay: &Replay,
    ) -> Saved {
        let Replay { assignment, worker, what, samples, .. } = replay;
        let (step, replica) = (assignment.step.0, assignment.replica.0);
        let dir = self.path.join(self.replay_folder(*assignment)?);
        let about = serde_json::json!({
            "step": step, "replica": replica, "worker": worker, "what": what, "samples": samples,
        });
        let write = || -> anyhow::Result<()> {
            fs::create_dir_all(&dir)?;
            fs::write(dir.join("contribution.json"), format!("{about:#}\n"))?;
            checkpoint.write_with(&dir, parts)?;
            Ok(())
        };
        write().map_err(|error| format!("cannot write {}: {error:#}", dir.display()))?;
        Ok(dir)
    }

    /// Whoever removes the folder may have started another server in its place.
    ///
    /// # Errors
    /// It is another one.
    pub(crate) fn check_is_ours(&self) -> Result<(), String> {
        let named = fs::metadata(self.path.join(LOCK_FILE));
        match (named, self.lock.metadata()) {
            (Ok(named), Ok(ours)) if named.ino() == ours.ino() && named.dev() == ours.dev() => {
                Ok(())
            }
            _ => Err(format!(
                "the run folder {} was removed or replaced while the server ran",
                self.path.display()
            )),
        }
    }
}

/// The path written, or why not.
pub(crate) type Saved = Result<PathBuf, String>;

fn lock(path: &Path) -> anyhow::Result<File> {
    let file = path.join(LOCK_FILE);
    let lock = File::create(&file).with_context(|| format!("cannot create {}", file.display()))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => bail!(
            "the run folder {} is in use by another server: stop it, or choose another (--run-dir)",
            path.display()
        ),
        Err(TryLockError::Error(error)) => {
            tracing::warn!("{} cannot be locked: start one server only ({error})", file.display());
        }
    }
    Ok(lock)
}

/// The checkpoint with the stop and place keys of `job`, if it is one of its run.
fn resume(mut found: Checkpoint, job: &Job) -> anyhow::Result<Checkpoint> {
    found.check_job(job)?;
    if found.build != BUILD {
        tracing::warn!(
            "the checkpoint was made by {}, this is {BUILD}: from here on the bits may differ",
            found.build
        );
    }
    found.job = job.clone();
    Ok(found)
}

fn write_config(path: &Path, job: &Job) -> io::Result<()> {
    let aside = path.join(".config.partial");
    fs::write(&aside, job.config.to_toml())?;
    fs::rename(&aside, path.join(CONFIG_FILE))
}

/// Writes the curve on a thread of its own: a slow disk must not hold up a decision.
struct CurveThread {
    lines: Option<mpsc::Sender<Line>>,
    thread: Option<JoinHandle<()>>,
}

impl CurveThread {
    fn start(mut curve: Curve) -> io::Result<Self> {
        let (lines, received) = mpsc::channel();
        let thread = std::thread::Builder::new().name("hw2-curve".into()).spawn(move || {
            for line in received {
                if let Err(error) = curve.add(&line) {
                    tracing::error!("the curve misses {}: {error}", line.step());
                }
            }
        })?;
        Ok(Self { lines: Some(lines), thread: Some(thread) })
    }

    fn add(&self, line: Line) {
        let lines = self.lines.as_ref().expect("there until drop");
        lines.send(line).expect("the curve's thread ends after this");
    }
}

impl Drop for CurveThread {
    fn drop(&mut self) {
        drop(self.lines.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed where it happened.
            let _ = thread.join();
        }
    }
}
