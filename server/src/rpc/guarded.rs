//! A connection that must begin to speak, and of which there may only be so many: strangers must
//! not use up the descriptors that checkpoints and workers need.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hw2_common::turns::Turns;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;
use tonic::transport::server::Connected;

use super::line::{End, Line};

/// Bytes with which every HTTP/2 client begins; from then on pings tell whether it is alive.
const PREFACE_BYTES: usize = 24;
/// Time for them.
const PREFACE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for the other side to close a connection too, once this one has.
const LINGER: Duration = Duration::from_secs(1);
/// What still comes in then is not looked at.
const IGNORED_BYTES: usize = 4096;
/// Descriptors that connections leave for checkpoints, logs and the rest.
const DESCRIPTORS_RESERVED: u64 = 64;
const CONNECTIONS_MIN: usize = 16;
/// Two for each of the most members there may be.
const CONNECTIONS_MAX: usize = 8192;

/// Permits for as many connections as this process has descriptors for, having asked the system for
/// as many as it may have.
pub(super) fn permits() -> Arc<Semaphore> {
    let descriptors =
        getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, hard)| {
            match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
                Ok(()) => hard,
                Err(_) => soft,
            }
        });
    let free = usize::try_from(descriptors.saturating_sub(DESCRIPTORS_RESERVED));
    let free = free.unwrap_or(CONNECTIONS_MAX);
    Arc::new(Semaphore::new(free.clamp(CONNECTIONS_MIN, CONNECTIONS_MAX)))
}

/// A connection with its permit, read in turns. Its calls know it as a [`Line`].
pub(super) struct Guarded<C> {
    connection: Turns<C>,
    line: Line,
    end: End,
    /// Until the preface is there.
    deadline: Option<Pin<Box<Sleep>>>,
    received: usize,
    /// Until this side waits no longer for the other one to close it too.
    linger: Option<Pin<Box<Sleep>>>,
    _permit: OwnedSemaphorePermit,
}

impl<C> Guarded<C> {
    /// The time for the preface begins.
    pub(super) fn new(connection: C, permit: OwnedSemaphorePermit) -> Self {
        let deadline = Some(Box::pin(tokio::time::sleep(PREFACE_TIMEOUT)));
        let (connection, (line, end)) = (Turns::new(connection), Line::open());
        Self { connection, line, end, deadline, received: 0, linger: None, _permit: permit }
    }

    /// A result of writing: whoever is written to may be gone.
    fn unless_hung_up(&mut self, written: io::Result<usize>) -> io::Result<usize> {
        written.inspect_err(|_| self.end.hung_up())
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Guarded<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let before = buffer.filled().len();
        let read = ready!(Pin::new(&mut self.connection).poll_read(context, buffer));
        if read.is_err() || buffer.filled().len() == before && buffer.remaining() > 0 {
            self.end.hung_up();
        }
        read?;
        if self.deadline.is_some() {
            self.received += buffer.filled().len() - before;
            if self.received >= PREFACE_BYTES {
                self.deadline = None;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guarded<C> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.connection).poll_write(context, bytes));
        Poll::Ready(self.unless_hung_up(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.connection).poll_write_vectored(context, slices));
        Poll::Ready(self.unless_hung_up(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(context)
    }

    /// Who says that it goes, and closes the connection just behind, has hung up, even if HTTP/2 closes
    /// it here as soon as it has heard the former.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let shut = ready!(Pin::new(&mut this.connection).poll_shutdown(context));
        shut.inspect_err(|_| this.end.hung_up())?;
        let linger = this.linger.get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER)));
        loop {
            let mut ignored = [0; IGNORED_BYTES];
            let mut ignored = ReadBuf::new(&mut ignored);
            match Pin::new(&mut this.connection).poll_read(context, &mut ignored) {
                Poll::Ready(Ok(())) if !ignored.filled().is_empty() => {}
                Poll::Ready(_) => {
                    this.end.hung_up();
                    return Poll::Ready(Ok(()));
                }
                Poll::Pending => return linger.as_mut().poll(context).map(Ok),
            }
        }
    }
}

impl<C> Connected for Guarded<C> {
    type ConnectInfo = Line;

    fn connect_info(&self) -> Line {
        self.line.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn guarded() -> (tokio::io::DuplexStream, Guarded<tokio::io::DuplexStream>) {
        let permit = Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap();
        let (client, server) = tokio::io::duplex(1024);
        (client, Guarded::new(server, permit))
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_never_says_its_preface_is_given_up() {
        let (mut client, mut server) = guarded().await;
        client.write_all(&[0; PREFACE_BYTES - 1]).await.unwrap();
        let mut bytes = [0; 2 * PREFACE_BYTES];
        assert_eq!(server.read(&mut bytes).await.unwrap(), PREFACE_BYTES - 1);
        let error = server.read(&mut bytes).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    /// Whether the calls of a connection are told that the other side has closed it.
    async fn told<T>(
        ends: impl AsyncFnOnce(tokio::io::DuplexStream, Guarded<tokio::io::DuplexStream>) -> T,
    ) -> bool {
        let (client, server) = guarded().await;
        let (tell, told) = std::sync::mpsc::channel();
        server.connect_info().on_hang_up(move || tell.send(()).unwrap());
        ends(client, server).await;
        told.try_recv().is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn its_calls_are_told_when_the_other_side_closes_it_and_not_when_this_one_does() {
        let reads_the_end = async |client, mut server: Guarded<_>| {
            drop(client);
            assert_eq!(server.read(&mut [0; 8]).await.unwrap(), 0);
        };
        assert!(told(reads_the_end).await);
        let closes_first_and_hears_of_it =
            async |mut client: tokio::io::DuplexStream, mut server: Guarded<_>| {
                let closes = async move {
                    client.write_all(&[0; 3 * IGNORED_BYTES / 8]).await.unwrap();
                    assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
                };
                tokio::join!(server.shutdown(), closes).0.unwrap();
            };
        assert!(told(closes_first_and_hears_of_it).await);
        // The client is kept: nobody closes it there.
        assert!(!told(async |client, server| (client, drop(server))).await);
        let waits_in_vain = async |client, mut server: Guarded<_>| {
            server.shutdown().await.unwrap();
            client
        };
        assert!(!told(waits_in_vain).await);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_has_may_be_silent() {
        let (mut client, mut server) = guarded().await;
        client.write_all(&[0; PREFACE_BYTES]).await.unwrap();
        let mut bytes = [0; PREFACE_BYTES];
        server.read_exact(&mut bytes).await.unwrap();
        tokio::time::sleep(2 * PREFACE_TIMEOUT).await;
        client.write_all(&[1]).await.unwrap();
        assert_eq!(server.read(&mut bytes).await.unwrap(), 1);
    }
}
