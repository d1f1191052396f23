//! The socket that a server listens on, bound by whoever starts it.

use std::io::{self, ErrorKind};
use std::net::TcpListener;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use hw2_common::address::Address;

/// A bound socket.
#[derive(Debug)]
pub struct Listener {
    pub(crate) socket: Socket,
}

#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

/// Removes the socket's file when the server ends, unless another server's is there by then.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    inode: u64,
}

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody else does.
    #[error(
        "{0} is in use by another process: stop it, or listen elsewhere (--listen, config key \
         `listen`)"
    )]
    InUse(Address),
    /// The system refuses.
    #[error("cannot listen on {address}: {source}")]
    Io {
        /// What was asked for.
        address: Address,
        /// The answer.
        source: io::Error,
    },
}

impl Listener {
    /// Binds `address`; port 0 takes any free one. The file of a Unix socket that nobody listens on
    /// any more is replaced.
    ///
    /// # Errors
    /// Names the address and what to do.
    pub fn bind(address: &Address) -> Result<Self, ListenError> {
        let bound = match address {
            Address::Tcp(address) => TcpListener::bind(address).map(Socket::Tcp),
            Address::Unix(path) => bind_unix(path),
        };
        let socket = bound.map_err(|source| match source.kind() {
            ErrorKind::AddrInUse => ListenError::InUse(address.clone()),
            _ => ListenError::Io { address: address.clone(), source },
        })?;
        Ok(Self { socket })
    }

    /// Where clients find it, with the port that was chosen.
    ///
    /// # Errors
    /// The system does not know.
    pub fn address(&self) -> io::Result<Address> {
        Ok(match &self.socket {
            Socket::Tcp(listener) => Address::Tcp(listener.local_addr()?.to_string()),
            Socket::Unix(_, file) => Address::Unix(file.path.clone()),
        })
    }
}

fn bind_unix(path: &Path) -> io::Result<Socket> {
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == ErrorKind::AddrInUse && is_deserted(path) => {
            std::fs::remove_file(path)?;
            UnixListener::bind(path)?
        }
        bound => bound?,
    };
    let inode = std::fs::symlink_metadata(path)?.ino();
    Ok(Socket::Unix(listener, SocketFile { path: path.to_owned(), inode }))
}

/// Whether `path` is what a server that was killed has left behind.
fn is_deserted(path: &Path) -> bool {
    // Any file refuses a connection.
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|it| it.file_type().is_socket());
    is_socket
        && UnixStream::connect(path)
            .is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours = |it: std::fs::Metadata| it.ino() == self.inode;
        if std::fs::symlink_metadata(&self.path).is_ok_and(is_ours)
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::debug!("the socket's file stays: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_named() {
        let first = Listener::bind(&"127.0.0.1:0".parse().unwrap()).unwrap();
        let address = first.address().unwrap();
        let error = Listener::bind(&address).unwrap_err().to_string();
        assert!(error.contains(&address.to_string()) && error.contains("--listen"), "{error}");
    }

    #[test]
    fn a_dead_servers_socket_is_replaced_and_a_living_ones_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let address = Address::Unix(dir.path().join("ps.sock"));
        let living = Listener::bind(&address).unwrap();
        assert!(matches!(Listener::bind(&address), Err(ListenError::InUse(_))));
        let Socket::Unix(listener, file) = living.socket else { panic!("a Unix socket") };
        drop(listener); // as a kill does: the file stays
        drop(Listener::bind(&address).unwrap());
        assert!(!file.path.exists());
        std::fs::write(&file.path, "somebody's file").unwrap();
        assert!(Listener::bind(&address).is_err());
        assert!(file.path.exists());
    }
}
