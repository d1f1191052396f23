//! A body of messages on its way out.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::Stream;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame};
use tokio::sync::oneshot;
use tonic::{Code, Status};

use super::Parcel;

/// A body of messages. HTTP/2 is given the next one only when it has written the values of the last:
/// it would take up to a megabyte in advance, which what is more urgent could not overtake.
pub(super) struct Outgoing<S> {
    messages: S,
    /// Of the message whose head was sent last.
    values: Option<Bytes>,
    /// Comes to its end when HTTP/2 has written the values that it has.
    writing: Option<oneshot::Receiver<Infallible>>,
    trailers: Trailers,
}

/// How a call went stands after an answer.
pub(super) enum Trailers {
    None,
    Due,
    Sent,
}

/// The values of a chunk that HTTP/2 is to write, and then drops.
struct Unwritten {
    values: Bytes,
    _writing: oneshot::Sender<Infallible>,
}

impl AsRef<[u8]> for Unwritten {
    fn as_ref(&self) -> &[u8] {
        &self.values
    }
}

impl<S> Outgoing<S> {
    pub(super) fn new(messages: S, trailers: Trailers) -> Self {
        Self { messages, values: None, writing: None, trailers }
    }
}

impl<S> HttpBody for Outgoing<S>
where
    S: Stream<Item = Result<Parcel, Status>> + Unpin,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(values) = self.values.take() {
            let (_writing, writing) = oneshot::channel();
            self.writing = Some(writing);
            let values = Bytes::from_owner(Unwritten { values, _writing });
            return Poll::Ready(Some(Ok(Frame::data(values))));
        }
        if let Some(writing) = &mut self.writing {
            let Err(_) = ready!(Pin::new(writing).poll(context));
            self.writing = None;
        }
        if matches!(self.trailers, Trailers::Sent) {
            return Poll::Ready(None);
        }
        let end = match ready!(Pin::new(&mut self.messages).poll_next(context)) {
            Some(Ok(Parcel { head, values })) => {
                self.values = values;
                return Poll::Ready(Some(Ok(Frame::data(head))));
            }
            Some(Err(status)) => status,
            None => Status::new(Code::Ok, ""),
        };
        if matches!(self.trailers, Trailers::None) {
            return Poll::Ready(None);
        }
        self.trailers = Trailers::Sent;
        let mut trailers = HeaderMap::new();
        end.add_header(&mut trailers)?;
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use futures_util::stream::iter;
    use http_body_util::BodyExt;
    use hw2_proto::v1::Chunk;

    use super::*;

    #[test]
    fn the_next_message_is_asked_for_when_the_values_of_the_last_are_written() {
        let chunk = Chunk { values: Bytes::from_static(b"abcd"), ..Chunk::default() };
        let parcels = [chunk.clone(), chunk].map(|chunk| Ok(Parcel::of_chunk(2, chunk)));
        let mut body = Outgoing::new(iter(parcels), Trailers::None);
        let mut next = || body.frame().now_or_never();
        let [head, values] = [(); 2].map(|()| next().unwrap().unwrap().unwrap());
        drop(head);
        assert!(next().is_none(), "they are not written");
        drop(values);
        let [_, values] = [(); 2].map(|()| next().unwrap().unwrap().unwrap());
        assert!(next().is_none());
        drop(values);
        assert!(next().unwrap().is_none(), "the end");
    }
}
