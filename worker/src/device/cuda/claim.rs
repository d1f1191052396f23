//! Which GPU is free: each process holds a lock while it computes on one.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// The locks that this process holds, by the names of their GPUs. They end with the process.
static HELD: Mutex<BTreeMap<String, File>> = Mutex::new(BTreeMap::new());

/// Takes the GPU with this name for this process; false if another process has it.
pub(super) fn claim(name: &str) -> bool {
    let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    if held.contains_key(name) {
        return true;
    }
    // Where no lock can be made nobody knows better than to try.
    let Some(file) = lock_file(name) else { return true };
    let is_free = !is_held_elsewhere(&file);
    if is_free {
        held.insert(name.to_owned(), file);
    }
    is_free
}

/// Whether another process has it.
pub(super) fn is_taken(name: &str) -> bool {
    let held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    !held.contains_key(name) && lock_file(name).is_some_and(|file| is_held_elsewhere(&file))
}

/// Takes the lock if nobody has it. What cannot be locked at all is not locked.
fn is_held_elsewhere(file: &File) -> bool {
    matches!(file.try_lock(), Err(TryLockError::WouldBlock))
}

fn lock_file(name: &str) -> Option<File> {
    open(&std::env::temp_dir().join(format!("hw2-{name}.lock")))
}

/// It may be another user's, who can be locked out all the same.
fn open(path: &Path) -> Option<File> {
    let made = OpenOptions::new().write(true).create(true).truncate(false).open(path);
    made.or_else(|_| File::open(path)).ok()
}
