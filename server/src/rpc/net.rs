//! Connections: each is served on one of a few threads with a single-threaded runtime, so that a
//! gradient is read and checked without changing threads.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use hw2_common::connection::{KEEP_ALIVE_INTERVAL, KEEP_ALIVE_TIMEOUT};
use hw2_common::wire::{FRAME_BYTES, MESSAGE_BYTES_MAX};
use hw2_common::{socket, turns};
use hw2_proto::v1::control_server::ControlServer;
use hw2_proto::v1::followers_server::FollowersServer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use super::control::ControlService;
use super::data::DataService;
use super::desk::Desk;
use super::followers::FollowersService;
use super::guarded::{self, Guarded};
use crate::listener::{Listener, Socket};
use crate::shard::Muster;

/// An odd number of threads takes connections in turn: a worker opens one for control and then one
/// for data, so that with an even number some threads would have all of the data.
const THREADS_MIN: usize = 3;
const THREADS_MAX: usize = 9;
/// Receive windows: what a worker may send before it is read.
const STREAM_WINDOW_BYTES: u32 = 16 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 32 << 20;
/// Calls that one connection may have under way; a worker has two or three.
const CALLS_MAX: u32 = 64;
/// Time for answers that are on their way when the server ends.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// Pause after the system refused a connection.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// The sockets of a running server; dropping it closes them at once.
pub(crate) struct Edge {
    stop: CancellationToken,
    accepting: tokio::task::JoinHandle<()>,
    threads: Vec<JoinHandle<()>>,
}

impl Edge {
    /// Serves whoever connects to `listener`, with what lies on `desk`; followers enlist with
    /// `muster`, if this one is their coordinator.
    ///
    /// # Errors
    /// The system has no thread left, or does not take the listener.
    pub(crate) fn start(
        listener: Listener,
        desk: &Desk,
        muster: Option<Muster>,
    ) -> io::Result<Self> {
        let services = Services {
            control: ControlService { desk: desk.clone() },
            data: DataService { desk: desk.clone() },
            followers: FollowersService { muster },
        };
        let stop = CancellationToken::new();
        match listener.socket {
            Socket::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                let listener = TcpListener::from_std(listener)?;
                Self::accept::<TcpStream>(listener, (), services, stop)
            }
            Socket::Unix(listener, file) => {
                listener.set_nonblocking(true)?;
                let listener = UnixListener::from_std(listener)?;
                Self::accept::<UnixStream>(listener, file, services, stop)
            }
        }
    }

    /// `kept` lives as long as the listener.
    fn accept<C: Connection>(
        listener: C::Listener,
        kept: impl Send + 'static,
        services: Services,
        stop: CancellationToken,
    ) -> io::Result<Self> {
        let cores = std::thread::available_parallelism()?.get();
        let mut lanes = Vec::new();
        let mut threads = Vec::new();
        for number in 0..cores.clamp(THREADS_MIN, THREADS_MAX) | 1 {
            let (lane, connections) = mpsc::unbounded_channel();
            let (services, stop) = (services.clone(), stop.clone());
            let runtime = turns::runtime()?;
            let name = format!("hw2-io-{number}");
            threads.push(std::thread::Builder::new().name(name).spawn(move || {
                runtime.block_on(serve::<C>(connections, services, stop));
                // Connections that are still open are cut off here.
            })?);
            lanes.push(lane);
        }
        let stopped = stop.clone();
        let accepting = tokio::spawn(async move {
            let _kept = kept;
            tokio::select! {
                () = accept_all::<C>(&listener, &lanes) => {}
                () = stopped.cancelled() => {}
            }
        });
        Ok(Self { stop, accepting, threads })
    }

    /// Ends all connections, after a moment for answers that are on their way.
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        // Neither can fail but by a panic, which has been printed where it happened.
        let _ = (&mut self.accepting).await;
        let threads = std::mem::take(&mut self.threads);
        let join = move || threads.into_iter().for_each(|thread| drop(thread.join()));
        let _ = tokio::task::spawn_blocking(join).await;
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A connection on its way to the thread that will serve it.
type Accepted<C> = (<C as Connection>::Std, OwnedSemaphorePermit);

/// Hands connections to the threads in turn. While there are as many as may be, others wait.
async fn accept_all<C: Connection>(
    listener: &C::Listener,
    lanes: &[mpsc::UnboundedSender<Accepted<C>>],
) {
    let permits = guarded::permits();
    let mut next = 0;
    loop {
        let permit = Arc::clone(&permits).acquire_owned().await.expect("never closed");
        match C::accept(listener).await {
            Ok(connection) => {
                // A lane only closes when the server ends.
                let _ = lanes[next].send((connection, permit));
                next = (next + 1) % lanes.len();
            }
            Err(error) => {
                tracing::warn!("cannot accept a connection: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

#[derive(Clone)]
struct Services {
    control: ControlService,
    data: DataService,
    followers: FollowersService,
}

/// Serves the connections of one thread until `stop`.
async fn serve<C: Connection>(
    connections: mpsc::UnboundedReceiver<Accepted<C>>,
    services: Services,
    stop: CancellationToken,
) {
    let control = ControlServer::new(services.control).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let server = Server::builder()
        .max_frame_size(FRAME_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(CALLS_MAX)
        .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
        .add_service(control)
        .add_service(services.data)
        .add_service(FollowersServer::new(services.followers));
    let guard = |(connection, permit)| {
        C::from_std(connection).map(|connection| Guarded::new(connection, permit))
    };
    let incoming = UnboundedReceiverStream::new(connections).map(guard);
    let stopped = stop.clone();
    let serving = server.serve_with_incoming_shutdown(incoming, stopped.cancelled());
    // tonic waits for every open call, for ever if need be.
    let last_words = async {
        stop.cancelled().await;
        tokio::time::sleep(LAST_WORDS).await;
    };
    tokio::select! {
        served = serving => {
            if let Err(error) = served {
                tracing::error!("a thread has stopped serving connections: {error}");
            }
        }
        () = last_words => {}
    }
}

/// TCP or Unix.
trait Connection: AsyncRead + AsyncWrite + Unpin + Send + Sized + 'static {
    type Listener: Send + Sync + 'static;
    /// Belongs to no runtime yet.
    type Std: Send + 'static;

    fn accept(listener: &Self::Listener) -> impl Future<Output = io::Result<Self::Std>> + Send;
    fn from_std(connection: Self::Std) -> io::Result<Self>;
}

impl Connection for TcpStream {
    type Listener = TcpListener;
    type Std = std::net::TcpStream;

    async fn accept(listener: &TcpListener) -> io::Result<Self::Std> {
        let (connection, _) = listener.accept().await?;
        socket::set_up_tcp(&connection)?;
        connection.into_std()
    }

    fn from_std(connection: Self::Std) -> io::Result<Self> {
        Self::from_std(connection)
    }
}

impl Connection for UnixStream {
    type Listener = UnixListener;
    type Std = std::os::unix::net::UnixStream;

    async fn accept(listener: &UnixListener) -> io::Result<Self::Std> {
        let (connection, _) = listener.accept().await?;
        socket::set_up_unix(&connection)?;
        connection.into_std()
    }

    fn from_std(connection: Self::Std) -> io::Result<Self> {
        Self::from_std(connection)
    }
}
