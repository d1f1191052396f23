//! What a round is compared with: the same bytes both ways over plain sockets, that nobody looks
//! at.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use hw2_common::address::Address;
use nix::sys::socket::{setsockopt, sockopt};

/// Bytes that a Unix socket is asked to take at once; those of TCP are the system's own affair.
const BUFFER_BYTES: usize = 4 << 20;
/// Bytes handed to the system at once.
const PIECE_BYTES: usize = 1 << 20;
const WARM_UP_ROUNDS: u32 = 3;
const PAGE_BYTES: usize = 4096;
/// Where in a page [`Memory`] begins.
const PLACE: usize = 16;

/// Time of a round in which each of `clients` sends `bytes` to a server and then gets as many back,
/// over the kind of socket that `address` is.
///
/// # Errors
/// The system gives no more sockets or threads.
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
    let pairs = (0..clients).map(|_| pair()).collect::<io::Result<Vec<_>>>()?;
    let spans = thread::scope(|scope| {
        let (ready, warm) = mpsc::channel();
        let (mut starts, mut ends) = (Vec::new(), Vec::new());
        for (mut client, mut server) in pairs {
            let serve = move || {
                let mut memory = Memory::new(bytes);
                let memory = memory.place();
                // Ends with an error when the client has gone.
                while get(&mut server, memory).and_then(|()| put(&mut server, memory)).is_ok() {}
            };
            thread::Builder::new().spawn_scoped(scope, serve)?;
            let (start, started) = mpsc::channel::<()>();
            let ready = ready.clone();
            let ask = move || {
                let mut memory = Memory::new(bytes);
                let memory = memory.place();
                memory.fill(2);
                let mut repeat = |rounds: u32| {
                    (0..rounds).try_for_each(|_| {
                        put(&mut client, memory)?;
                        get(&mut client, memory)
                    })
                };
                let warm = repeat(WARM_UP_ROUNDS);
                // Whatever happened: the others wait for it.
                let _ = ready.send(());
                warm?;
                started.recv().map_err(|_| io::Error::other("not all clients could begin"))?;
                let began = Instant::now();
                repeat(rounds)?;
                Ok::<_, io::Error>((began, Instant::now()))
            };
            ends.push(thread::Builder::new().spawn_scoped(scope, ask)?);
            starts.push(start);
        }
        drop(ready);
        warm.iter().take(starts.len()).for_each(drop);
        // One that is gone says why below.
        starts.iter().for_each(|start| _ = start.send(()));
        let joined = ends.into_iter().map(|end| end.join().expect("a client does not panic"));
        joined.collect::<io::Result<Vec<_>>>()
    })?;
    let began = spans.iter().map(|(began, _)| *began).min().expect("there is a client");
    let ended = spans.iter().map(|(_, ended)| *ended).max().expect("there is a client");
    Ok((ended - began) / rounds)
}

/// Memory at the place in its page where malloc puts so much in a program that has freed nothing
/// yet. An AMD EPYC copies at half or a quarter of its speed to a place that lies up to 31 bytes
/// further into its page than the source: a round would take longer or shorter by what was freed
/// before it.
struct Memory {
    all: Vec<u8>,
    bytes: usize,
}

impl Memory {
    fn new(bytes: usize) -> Self {
        Self { all: vec![0; PAGE_BYTES + PLACE + bytes], bytes }
    }

    fn place(&mut self) -> &mut [u8] {
        let start = self.all.as_ptr().align_offset(PAGE_BYTES) + PLACE;
        &mut self.all[start..][..self.bytes]
    }
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
