//! The floor of a round: the same bytes both ways over plain sockets, that nobody looks at.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use hw2_common::address::Address;
use memmap2::MmapMut;
use nix::sys::socket::{setsockopt, sockopt};

/// Bytes that a Unix socket is asked to take at once; those of TCP are the system's own affair.
const BUFFER_BYTES: usize = 4 << 20;
/// Bytes handed to the system at once.
const PIECE_BYTES: usize = 1 << 20;
const WARM_UP_ROUNDS: u32 = 3;
/// Bytes of a mapping before those that malloc gives away.
const MALLOC_BYTES: usize = 16;

/// Time of a round in which each of `clients` sends `bytes` to a server and then gets as many back, over
/// the kind of socket that `address` is.
///
/// # Errors
/// The system gives no sockets or threads.
pub(super) fn round(
    address: &Address,
    clients: u16,
    rounds: u32,
    bytes: usize,
) -> io::Result<Duration> {
    match address {
        Address::Tcp(_) => rounds_over(tcp_pair, clients, rounds, bytes),
        Address::Unix(_) => rounds_over(unix_pair, clients, rounds, bytes),
    }
}

fn tcp_pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let client = TcpStream::connect(listener.local_addr()?)?;
    let (server, _) = listener.accept()?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    Ok((client, server))
}

fn unix_pair() -> io::Result<(UnixStream, UnixStream)> {
    let (client, server) = UnixStream::pair()?;
    for socket in [client.as_fd(), server.as_fd()] {
        setsockopt(&socket, sockopt::SndBuf, &BUFFER_BYTES)?;
        setsockopt(&socket, sockopt::RcvBuf, &BUFFER_BYTES)?;
    }
    Ok((client, server))
}

fn rounds_over<S: Read + Write + Send>(
    pair: impl Fn() -> io::Result<(S, S)>,
    clients: u16,
    rounds: u32,
    bytes: usize,
) -> io::Result<Duration> {
    let end = |socket| Ok::<_, io::Error>((socket, memory(bytes)?));
    let pairs = (0..clients).map(|_| {
        let (client, server) = pair()?;
        Ok((end(client)?, end(server)?))
    });
    let pairs = pairs.collect::<io::Result<Vec<_>>>()?;
    let start = Barrier::new(clients.into());
    let spans = thread::scope(|scope| {
        let mut ends = Vec::new();
        for ((mut client, mut client_memory), (mut server, mut server_memory)) in pairs {
            scope.spawn(move || {
                let memory = &mut server_memory[MALLOC_BYTES..];
                // Ends with an error when the client has gone.
                while get(&mut server, memory).and_then(|()| put(&mut server, memory)).is_ok() {}
            });
            let start = &start;
            ends.push(scope.spawn(move || {
                let memory = &mut client_memory[MALLOC_BYTES..];
                memory.fill(2);
                let mut repeat = |rounds: u32| {
                    (0..rounds).try_for_each(|_| {
                        put(&mut client, memory)?;
                        get(&mut client, memory)
                    })
                };
                let warm = repeat(WARM_UP_ROUNDS);
                // Whatever happened: the others wait here.
                start.wait();
                warm?;
                let began = Instant::now();
                repeat(rounds)?;
                Ok::<_, io::Error>((began, Instant::now()))
            }));
        }
        let joined = ends.into_iter().map(|end| end.join().expect("a client does not panic"));
        joined.collect::<io::Result<Vec<_>>>()
    })?;
    let began = spans.iter().map(|(began, _)| *began).min().expect("there is a client");
    let ended = spans.iter().map(|(_, ended)| *ended).max().expect("there is a client");
    Ok((ended - began) / rounds)
}

/// As malloc gives `bytes` to a program that has freed nothing yet, behind [`MALLOC_BYTES`]: a mapping of
/// its own. An AMD EPYC copies at half or a quarter of its speed to a place that lies up to 31 bytes further
/// into its page than the source: a round would take longer or shorter by what was freed before it.
fn memory(bytes: usize) -> io::Result<MmapMut> {
    MmapMut::map_anon(MALLOC_BYTES + bytes)
}

fn put(socket: &mut impl Write, memory: &[u8]) -> io::Result<()> {
    memory.chunks(PIECE_BYTES).try_for_each(|piece| socket.write_all(piece))
}

fn get(socket: &mut impl Read, memory: &mut [u8]) -> io::Result<()> {
    socket.read_exact(memory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_socket_carry_it() {
        for address in ["127.0.0.1:0", "unix:/any.sock"] {
            let address = address.parse().unwrap();
            assert!(round(&address, 2, 3, 3 * PIECE_BYTES / 2).unwrap() > Duration::ZERO);
        }
    }
}
