//! A private place for the cluster's Unix sockets.

use std::path::{Path, PathBuf};

use anyhow::Context;
use hw2_common::address::{Address, Addresses};
use tempfile::TempDir;

/// Where a socket may lie when the temporary folder's path is too long for one.
const SHORT_DIR: &str = "/tmp";

/// A temporary folder with the sockets in it; all are removed when this is dropped.
#[derive(Debug)]
pub(crate) struct SocketDir {
    dir: TempDir,
    addresses: Addresses,
}

impl SocketDir {
    /// A new folder for as many servers in the system's temporary folder, or in /tmp when that path
    /// is too long.
    ///
    /// # Errors
    /// No folder can be made.
    pub(crate) fn new(servers: usize) -> anyhow::Result<Self> {
        Self::within(&std::env::temp_dir(), servers)
            .or_else(|_| Self::within(Path::new(SHORT_DIR), servers))
    }

    /// What the servers listen on.
    pub(crate) fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// The path of another file in the folder.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn within(parent: &Path, servers: usize) -> anyhow::Result<Self> {
        let dir =
            tempfile::Builder::new().prefix("hw2-").tempdir_in(parent).with_context(|| {
                format!("cannot make a folder in {}; TMPDIR names another", parent.display())
            })?;
        // Parsing checks the length.
        let address = |shard: usize| -> anyhow::Result<Address> {
            let path = dir.path().join(format!("ps-{shard}.sock"));
            Ok(format!("unix:{}", path.display()).parse()?)
        };
        let others = (1..servers).map(address).collect::<Result<Vec<_>, _>>()?;
        let addresses = Addresses::new(address(0)?, others);
        Ok(Self { dir, addresses })
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
        let error = SocketDir::within(&long_path, 1).unwrap_err();
        assert!(error.to_string().contains("at most 107 bytes"), "{error}");
        assert_eq!(std::fs::read_dir(&long_path).unwrap().count(), 0, "nothing stays behind");
    }

    #[test]
    fn the_folder_goes_with_its_owner() {
        let socket = SocketDir::new(2).unwrap();
        let file = socket.file("job.toml");
        std::fs::write(&file, "").unwrap();
        drop(socket);
        assert!(!file.exists());
    }
}
