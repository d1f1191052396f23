//! A private place for the cluster's Unix socket.

use std::path::{Path, PathBuf};

use anyhow::Context;
use hw2_common::address::Address;
use tempfile::TempDir;

/// Where a socket may lie when the temporary folder's path is too long for one.
const SHORT_DIR: &str = "/tmp";

/// A temporary folder with the socket in it; both are removed when this is dropped.
#[derive(Debug)]
pub(crate) struct SocketDir {
    dir: TempDir,
    address: Address,
}

impl SocketDir {
    /// A new folder in the system's temporary folder, or in /tmp when that path is too long.
    ///
    /// # Errors
    /// No folder can be made.
    pub(crate) fn new() -> anyhow::Result<Self> {
        Self::within(&std::env::temp_dir()).or_else(|_| Self::within(Path::new(SHORT_DIR)))
    }

    /// What the server listens on.
    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// The path of another file in the folder.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn within(parent: &Path) -> anyhow::Result<Self> {
        let dir =
            tempfile::Builder::new().prefix("hw2-").tempdir_in(parent).with_context(|| {
                format!("cannot make a folder in {}; TMPDIR names another", parent.display())
            })?;
        // Parsing checks the length.
        let address = format!("unix:{}", dir.path().join("ps.sock").display()).parse()?;
        Ok(Self { dir, address })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_temporary_folder_is_no_obstacle() {
        let long = tempfile::tempdir().unwrap();
        let long_path = long.path().join("x".repeat(100));
        std::fs::create_dir(&long_path).unwrap();
        let error = SocketDir::within(&long_path).unwrap_err();
        assert!(error.to_string().contains("at most 107 bytes"), "{error}");
        assert_eq!(std::fs::read_dir(&long_path).unwrap().count(), 0, "nothing stays behind");
    }

    #[test]
    fn the_folder_goes_with_its_owner() {
        let socket = SocketDir::new().unwrap();
        let file = socket.file("job.toml");
        std::fs::write(&file, "").unwrap();
        drop(socket);
        assert!(!file.exists());
    }
}
