//! The checkpoints of a folder: which there are, which one to use, which stay.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use tracing::{info, warn};

use super::{Checkpoint, CheckpointError};
use crate::ids::GlobalStep;
use crate::shard::Shard;
use crate::state::Progress;

/// How the name of a file ends while it is written.
pub(super) const PARTIAL: &str = ".partial";
/// What a damaged file's name gets added when it is set aside.
const DAMAGED: &str = ".damaged";
const NAME_START: &str = "checkpoint-";
const NAME_END: &str = ".safetensors";
const PART: &str = ".part-";

/// Which checkpoint of a folder to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// That of the best evaluation, or the newest where none was evaluated yet.
    Best,
    /// That of the latest step.
    Newest,
}

/// `checkpoint-00000300.safetensors` for step 300.
pub fn file_name(step: GlobalStep) -> String {
    format!("{NAME_START}{:08}{NAME_END}", step.0)
}

/// The file of another shard than the first beside it.
pub(super) fn part_name(step: GlobalStep, shard: Shard) -> String {
    let Shard { index, count } = shard;
    format!("{}{index}-of-{count}{NAME_END}", part_start(step))
}

/// How the names of all files of followers begin.
fn part_start(step: GlobalStep) -> String {
    format!("{NAME_START}{:08}{PART}", step.0)
}

/// The checkpoints in `dir` by their names, in order of their steps.
///
/// # Errors
/// When the folder cannot be read.
pub fn list(dir: &Path) -> Result<Vec<(GlobalStep, PathBuf)>, CheckpointError> {
    let mut found: Vec<_> = names(dir)?
        .iter()
        .filter_map(|name| step_of(name))
        .map(|step| (step, dir.join(file_name(step))))
        // What else has such a name, a folder or a pipe, cannot be read like a file.
        .filter(|(_, path)| fs::metadata(path).is_ok_and(|meta| meta.is_file()))
        .collect();
    found.sort();
    Ok(found)
}

/// The newest checkpoint in `dir` that is whole; none when there is no checkpoint at all. Each
/// damaged one passed over is a warning with its reason. Changes nothing.
///
/// # Errors
/// [`CheckpointError::AllDamaged`] when there are checkpoints and none is whole (starting over in
/// silence would cost a run); whatever keeps one from being read although it may be whole.
pub fn newest_valid(dir: &Path) -> Result<Option<Checkpoint>, CheckpointError> {
    let mut newest_damage = None;
    let files = list(dir)?;
    for (_, path) in files.iter().rev() {
        match Checkpoint::read(path) {
            Ok(checkpoint) => return Ok(Some(checkpoint)),
            // A running server has pruned it since the folder was listed.
            Err(error) if error.is_not_found() => {}
            Err(error @ CheckpointError::Damaged { .. }) => {
                warn!("{error}");
                newest_damage.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
    }
    match newest_damage {
        None => Ok(None),
        Some(newest) => Err(CheckpointError::AllDamaged {
            dir: dir.to_owned(),
            count: files.len(),
            newest: Box::new(newest),
        }),
    }
}

/// The checkpoint of the best evaluation that the newest one knows of; the newest itself when no
/// step was evaluated (step 0, which is random, does not count), or when that file is gone or
/// damaged, with a warning. None when there is no checkpoint at all.
///
/// # Errors
/// As [`newest_valid`].
pub fn best(dir: &Path) -> Result<Option<Checkpoint>, CheckpointError> {
    let Some(newest) = newest_valid(dir)? else { return Ok(None) };
    let best = newest.state.progress.best_known().filter(|best| best.step > GlobalStep(0));
    let Some(evaluation) = best else {
        warn!("no step was evaluated yet: the newest checkpoint stands in for the best one");
        return Ok(Some(newest));
    };
    if evaluation.step == newest.state.progress.global_step {
        return Ok(Some(newest));
    }
    match Checkpoint::read(&dir.join(file_name(evaluation.step))) {
        Ok(best) => Ok(Some(best)),
        Err(error) if error.is_not_found() || matches!(error, CheckpointError::Damaged { .. }) => {
            warn!("the newest checkpoint stands in for the best one: {error}");
            Ok(Some(newest))
        }
        Err(error) => Err(error),
    }
}

/// The checkpoint that a person means by `path`: that file, or `which` one of that folder.
///
/// # Errors
/// [`CheckpointError::NoCheckpoint`] for a folder without any, and as [`best`] and
/// [`Checkpoint::read`].
pub fn find(path: &Path, which: Which) -> Result<Checkpoint, CheckpointError> {
    let meta = fs::metadata(path).map_err(CheckpointError::io("open", path))?;
    if !meta.is_dir() {
        return Checkpoint::read(path);
    }
    let found = match which {
        Which::Best => best(path)?,
        Which::Newest => newest_valid(path)?,
    };
    found.ok_or_else(|| CheckpointError::NoCheckpoint { dir: path.to_owned() })
}

/// What a server starts from: [`newest_valid`], with the folder put in order for it.
///
/// Files of later steps are damaged, or they would have been taken. They are kept for a person to
/// look at, under a name that no checkpoint has (`.damaged` added), since the run will write those
/// steps again. What killed servers left half-written is removed, and files of shards whose
/// checkpoint was never completed. `dir` must have the servers of one run only.
///
/// # Errors
/// As [`newest_valid`], in which case nothing is changed; or when the folder cannot be changed.
pub fn recover(dir: &Path) -> Result<Option<Checkpoint>, CheckpointError> {
    let found = newest_valid(dir)?;
    let step = found.as_ref().map(|checkpoint| checkpoint.state.progress.global_step);
    for (later, path) in list(dir)? {
        if step.is_some_and(|step| later > step) {
            let parts = parts(dir, later)?;
            for path in parts.iter().chain([&path]) {
                let mut aside = path.clone().into_os_string();
                aside.push(DAMAGED);
                fs::rename(path, &aside).map_err(CheckpointError::io("set aside", path))?;
            }
            info!("kept the damaged checkpoint of {later} as {}{DAMAGED}", path.display());
        }
    }
    for name in names(dir)? {
        let is_partial = name.starts_with(&format!(".{NAME_START}")) && name.ends_with(PARTIAL);
        if is_partial || is_orphan(dir, &name) {
            remove(&dir.join(name))?;
        }
    }
    sync_folder(dir)?;
    Ok(found)
}

/// Removes the files of shards in `dir` whose checkpoint is not there. Nobody may be writing one.
///
/// # Errors
/// When the folder cannot be changed.
pub fn remove_orphans(dir: &Path) -> Result<(), CheckpointError> {
    let orphans = names(dir)?.into_iter().filter(|name| is_orphan(dir, name));
    orphans.into_iter().try_for_each(|name| remove(&dir.join(name)))
}

/// Removes all checkpoints in `dir` but the one of the best evaluation and the newest `keep`.
///
/// # Errors
/// When the folder cannot be changed.
pub fn prune(dir: &Path, progress: &Progress, keep: u32) -> Result<(), CheckpointError> {
    let best = progress.best_evaluation.map(|evaluation| evaluation.step);
    let files = list(dir)?;
    let old = files.len().saturating_sub(keep as usize);
    for (step, path) in &files[..old] {
        if best != Some(*step) {
            // First: without it they are none's.
            remove(path)?;
            parts(dir, *step)?.iter().try_for_each(|part| remove(part))?;
        }
    }
    Ok(())
}

/// The files of followers at `step`.
fn parts(dir: &Path, step: GlobalStep) -> Result<Vec<PathBuf>, CheckpointError> {
    let start = part_start(step);
    let is_one = |name: &String| name.starts_with(&start) && name.ends_with(NAME_END);
    Ok(names(dir)?.into_iter().filter(is_one).map(|name| dir.join(name)).collect())
}

/// Whether it is the name of a shard's file whose checkpoint is not there.
fn is_orphan(dir: &Path, name: &str) -> bool {
    let part = name.strip_suffix(NAME_END).and_then(|name| name.split_once(PART));
    part.is_some_and(|(checkpoint, _)| {
        let checkpoint = format!("{checkpoint}{NAME_END}");
        step_of(&checkpoint).is_some() && !dir.join(checkpoint).exists()
    })
}

/// Makes what was renamed or created in `dir` durable.
pub(super) fn sync_folder(dir: &Path) -> Result<(), CheckpointError> {
    let synced = File::open(dir).and_then(|folder| folder.sync_all());
    synced.map_err(CheckpointError::io("sync", dir))
}

/// Removes a file, unless someone else already has.
fn remove(path: &Path) -> Result<(), CheckpointError> {
    match fs::remove_file(path).map_err(CheckpointError::io("remove", path)) {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

/// File names in `dir` that are text, as any of ours is.
fn names(dir: &Path) -> Result<Vec<String>, CheckpointError> {
    let failed = |source| CheckpointError::Io { action: "list", path: dir.to_owned(), source };
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        names.extend(entry.map_err(failed)?.file_name().into_string().ok());
    }
    Ok(names)
}

/// The step of a file's name; none for a name that [`file_name`] does not make.
fn step_of(name: &str) -> Option<GlobalStep> {
    let digits = name.strip_prefix(NAME_START)?.strip_suffix(NAME_END)?;
    let step = GlobalStep(digits.parse().ok()?);
    (file_name(step) == name).then_some(step)
}
