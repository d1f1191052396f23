//! How much the sockets of a connection take at once.
//!
//! What is under way cannot be overtaken by what is more urgent, and between two processes of one
//! machine it is to stay in the caches of their cores. ARCHITECTURE.md has what both come to.

use std::io;
use std::os::fd::AsFd;

use nix::sys::socket::{setsockopt, sockopt};
use socket2::SockRef;

/// Bytes that a Unix socket should take before its sender waits. By default it takes less than a
/// chunk, so that the two sides wake each other several times for each; with more, what is under
/// way no longer fits in the caches.
const UNIX_SEND_BYTES: usize = 512 << 10;

/// Bytes that a TCP connection should hold unsent, beside what the system has given to the device
/// already: the device is kept busy by that. Behind a slow link it would else hold megabytes.
const UNSENT_BYTES: u32 = 64 << 10;
/// Bytes that a TCP connection within one machine should hold received and unread: there they need
/// not make up for the time that anything is on its way.
const LOCAL_UNREAD_BYTES: usize = 256 << 10;

/// Has a TCP connection send what it is given without delay, and take little in advance.
///
/// # Errors
/// It is no such socket.
pub fn set_up_tcp(connection: &impl AsFd) -> io::Result<()> {
    let socket = SockRef::from(connection);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_notsent_lowat(UNSENT_BYTES)?;
    if is_local(&socket) {
        socket.set_recv_buffer_size(LOCAL_UNREAD_BYTES)?;
    }
    Ok(())
}

/// Has a Unix connection take some chunks at once, or as much as the system allows.
///
/// # Errors
/// It is no socket.
pub fn set_up_unix(connection: &impl AsFd) -> io::Result<()> {
    Ok(setsockopt(connection, sockopt::SndBuf, &UNIX_SEND_BYTES)?)
}

/// Whether both ends have one address; one that is gone already has none.
fn is_local(socket: &SockRef<'_>) -> bool {
    let [here, there] = [socket.local_addr(), socket.peer_addr()]
        .map(|address| address.ok().and_then(|address| address.as_socket()));
    here.zip(there).is_some_and(|(here, there)| here.ip() == there.ip())
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::time::Duration;

    use socket2::{Domain, Socket, Type};

    use super::*;

    /// Both ends of a connection from `address` to 127.0.0.1.
    fn connection(address: &str) -> [TcpStream; 2] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        client.bind(&address.parse::<SocketAddr>().unwrap().into()).unwrap();
        client.connect(&listener.local_addr().unwrap().into()).unwrap();
        [client.into(), listener.accept().unwrap().0]
    }

    #[test]
    fn little_is_under_way() {
        for (from, is_local) in [("127.0.0.1:0", true), ("127.0.0.2:0", false)] {
            for end in connection(from) {
                let socket = SockRef::from(&end);
                let unread = socket.recv_buffer_size().unwrap();
                set_up_tcp(&end).unwrap();
                assert!(socket.tcp_nodelay().unwrap());
                assert_eq!(socket.tcp_notsent_lowat().unwrap(), UNSENT_BYTES);
                assert_eq!(socket.recv_buffer_size().unwrap() != unread, is_local, "from {from}");
            }
        }
    }

    #[test]
    fn a_connection_that_has_ended_is_no_error() {
        let [client, server] = connection("127.0.0.1:0");
        SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
        drop(client);
        while SockRef::from(&server).peer_addr().is_ok() {
            std::thread::yield_now();
        }
        set_up_tcp(&server).unwrap();
    }
}
