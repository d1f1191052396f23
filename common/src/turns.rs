//! Connections that are read in turns with what becomes of the bytes.
//!
//! HTTP/2 reads a connection for as long as there is something to read. While a whole gradient
//! comes in, its chunks would wait for all of it: they would leave the cache before anybody looked
//! at them, and what is to be sent meanwhile would wait too.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::{Builder, Runtime};

use crate::wire::FRAME_BYTES;

/// About one chunk.
const TURN_BYTES: usize = FRAME_BYTES as usize;

/// A connection whose reader lets the other tasks of its thread run after every chunk or so.
#[derive(Debug)]
pub struct Turns<C> {
    connection: C,
    /// Bytes of the present turn.
    read: usize,
}

/// A runtime for the connections of one thread. While something arrives there is always a task to
/// poll: so after each it looks for what other threads have to say, which would wait for 31 of
/// them.
///
/// # Errors
/// The system gives no more event queues.
pub fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().global_queue_interval(1).build()
}

impl<C> Turns<C> {
    /// Reads `connection` in turns.
    pub fn new(connection: C) -> Self {
        Self { connection, read: 0 }
    }

    /// The connection.
    pub fn get_ref(&self) -> &C {
        &self.connection
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Turns<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read >= TURN_BYTES {
            self.read = 0;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.connection).poll_read(context, buffer);
        if read.is_pending() {
            // The others have their turn.
            self.read = 0;
        }
        ready!(read)?;
        self.read += buffer.filled().len() - before;
        Poll::Ready(Ok(()))
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Turns<C> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};

    use tokio::io::AsyncWriteExt;

    use super::*;

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn the_word_of_another_thread_waits_for_one_turn() {
        let (say, word) = tokio::sync::oneshot::channel();
        let turns = runtime().unwrap().block_on(async {
            let listening = tokio::spawn(word);
            let reading = tokio::spawn(async move {
                // It is said, and this thread knows, before the next turn.
                std::thread::spawn(move || say.send(()).unwrap()).join().unwrap();
                let mut turns = 0;
                std::future::poll_fn(|context| {
                    if listening.is_finished() {
                        return Poll::Ready(turns);
                    }
                    turns += 1;
                    context.waker().wake_by_ref();
                    Poll::Pending
                })
                .await
            });
            reading.await.unwrap()
        });
        assert!(turns <= 2, "{turns}");
    }

    /// Bytes read until the reader is to wait.
    fn read_turn(turns: &mut Turns<&[u8]>, context: &mut Context<'_>) -> usize {
        let mut memory = [0; 1000];
        let mut read = 0;
        loop {
            let mut buffer = ReadBuf::new(&mut memory);
            match Pin::new(&mut *turns).poll_read(context, &mut buffer) {
                Poll::Ready(result) => result.unwrap(),
                Poll::Pending => return read,
            }
            match buffer.filled().len() {
                0 => return read,
                bytes => read += bytes,
            }
        }
    }

    #[tokio::test]
    async fn a_reader_that_had_to_wait_begins_a_new_turn() {
        let (mut client, server) = tokio::io::duplex(2 * TURN_BYTES);
        let mut turns = Turns::new(server);
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(Arc::clone(&wakes));
        let mut memory = vec![0; TURN_BYTES];
        let mut read = |turns: &mut Turns<_>| {
            let mut buffer = ReadBuf::new(&mut memory);
            let context = &mut Context::from_waker(&waker);
            let ready = Pin::new(turns).poll_read(context, &mut buffer).is_ready();
            ready.then_some(buffer.filled().len())
        };
        for _ in 0..3 {
            client.write_all(&vec![7; TURN_BYTES - 1]).await.unwrap();
            assert_eq!(read(&mut turns), Some(TURN_BYTES - 1));
            assert_eq!(read(&mut turns), None, "there is nothing");
        }
        client.write_all(&vec![7; TURN_BYTES]).await.unwrap();
        let before = wakes.0.load(Ordering::Relaxed);
        assert_eq!(read(&mut turns), Some(TURN_BYTES));
        assert_eq!((read(&mut turns), wakes.0.load(Ordering::Relaxed)), (None, before + 1));
    }

    #[test]
    fn a_reader_pauses_after_each_turn_and_loses_nothing() {
        let bytes = vec![7; 2 * TURN_BYTES + 5000];
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(Arc::clone(&wakes));
        let mut context = Context::from_waker(&waker);
        let mut turns = Turns::new(&bytes[..]);
        let mut left = bytes.len();
        for turn in 1..=2 {
            let read = read_turn(&mut turns, &mut context);
            assert!((TURN_BYTES..TURN_BYTES + 1000).contains(&read), "{read}");
            assert_eq!(wakes.0.load(Ordering::Relaxed), turn, "nobody else would wake the reader");
            left -= read;
        }
        assert_eq!(read_turn(&mut turns, &mut context), left);
        assert_eq!(wakes.0.load(Ordering::Relaxed), 2);
    }
}
