//! gRPC messages over HTTP/2 without copying the values of a chunk.
//!
//! The generated code encodes a message into one buffer and gathers what arrives in another: a copy
//! of the whole vector on each side and in each direction. Here a chunk's values travel as a frame
//! of their own, straight from the memory they lie in, and arrive as the frame that was received.
//! On the wire it is the same: gRPC over HTTP/2,
//! <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>.

mod outgoing;

use std::collections::VecDeque;

use bytes::{Buf, Bytes};
use futures_util::Stream;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response};
use http_body_util::BodyExt;
use hw2_proto::v1::{Chunk, PullMessage, PushMessage, pull_message, push_message};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};
use tonic::body::Body;
use tonic::{Code, Status};

use crate::wire::MESSAGE_BYTES_MAX;
use outgoing::{Outgoing, Trailers};

/// The path of `Data.Push`.
pub const PUSH: &str = "/hw2.ps.v1.Data/Push";
/// The path of `Data.Pull`.
pub const PULL: &str = "/hw2.ps.v1.Data/Pull";

/// Before each message: whether it is compressed (1 byte) and its length (4 bytes, big-endian).
const PREFIX_BYTES: usize = 5;
/// Frames that are no longer than this together are kept as one: each costs some 50 bytes of its
/// own, and the buffer it arrived in, which would be many times a message that comes byte by byte.
const JOINED_BYTES_MAX: usize = 512;
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
/// Field number of [`Chunk::values`], the last of its fields.
const CHUNK_VALUES_FIELD: u32 = 4;

/// A message as the frames of a body.
#[derive(Clone, Debug, PartialEq)]
pub struct Parcel {
    head: Bytes,
    /// Follows the head at once.
    values: Option<Bytes>,
}

impl Parcel {
    /// Of any message, which is copied.
    pub fn new(message: &impl Message) -> Self {
        let mut head = vec![0; PREFIX_BYTES];
        message.encode(&mut head).expect("a vector grows");
        Self { head: prefixed(head, 0), values: None }
    }

    /// Of a message whose field number `field` is `chunk`, and that has no other.
    fn of_chunk(field: u32, chunk: Chunk) -> Self {
        let values = chunk.values;
        let mut fields = Chunk { values: Bytes::new(), ..chunk }.encode_to_vec();
        encode_key(CHUNK_VALUES_FIELD, WireType::LengthDelimited, &mut fields);
        encode_varint(values.len() as u64, &mut fields);
        let mut head = vec![0; PREFIX_BYTES];
        encode_key(field, WireType::LengthDelimited, &mut head);
        encode_varint((fields.len() + values.len()) as u64, &mut head);
        head.extend(fields);
        Self { head: prefixed(head, values.len()), values: Some(values) }
    }
}

fn prefixed(mut head: Vec<u8>, more: usize) -> Bytes {
    let len = (head.len() - PREFIX_BYTES + more) as u32;
    head[1..PREFIX_BYTES].copy_from_slice(&len.to_be_bytes());
    head.into()
}

impl From<PushMessage> for Parcel {
    fn from(message: PushMessage) -> Self {
        match message.message {
            Some(push_message::Message::Chunk(chunk)) => Self::of_chunk(2, chunk),
            _ => Self::new(&message),
        }
    }
}

impl From<PullMessage> for Parcel {
    fn from(message: PullMessage) -> Self {
        match message.message {
            Some(pull_message::Message::Chunk(chunk)) => Self::of_chunk(1, chunk),
            _ => Self::new(&message),
        }
    }
}

/// A call of the method at `path`, with its messages.
pub fn request<S>(path: &'static str, messages: S) -> Request<Body>
where
    S: Stream<Item = Parcel> + Send + Unpin + 'static,
{
    let messages = futures_util::StreamExt::map(messages, Ok);
    let body = Outgoing::new(messages, Trailers::None);
    let mut request = Request::post(path).body(Body::new(body)).expect("a path is a URI");
    request.headers_mut().insert(CONTENT_TYPE, GRPC);
    request.headers_mut().insert(http::header::TE, HeaderValue::from_static("trailers"));
    request
}

/// An answer of messages, which an error ends.
pub fn response<S>(messages: S) -> Response<Body>
where
    S: Stream<Item = Result<Parcel, Status>> + Send + Unpin + 'static,
{
    let body = Outgoing::new(messages, Trailers::Due);
    let mut response = Response::new(Body::new(body));
    response.headers_mut().insert(CONTENT_TYPE, GRPC);
    response
}

/// The messages of an answer.
///
/// # Errors
/// The call was refused at once.
pub fn answer(response: Response<Body>) -> Result<Incoming, Status> {
    let (head, body) = response.into_parts();
    match Status::from_header_map(&head.headers) {
        Some(status) if status.code() != Code::Ok => Err(status),
        _ => Ok(Incoming::new(body)),
    }
}

/// The messages of a body that is being received.
#[derive(Debug)]
pub struct Incoming {
    body: Body,
    received: Received,
}

impl Incoming {
    /// Of a request.
    pub fn new(body: Body) -> Self {
        Self { body, received: Received::default() }
    }

    /// The next message; none after the last. May be dropped and called again at any time.
    ///
    /// # Errors
    /// The other side's status, or what is wrong with what it sent.
    pub async fn message<M: Message + Default>(&mut self) -> Result<Option<M>, Status> {
        loop {
            if let Some(message) = self.received.message()? {
                return Ok(Some(message));
            }
            let Some(frame) = self.body.frame().await else {
                return match self.received.len {
                    0 => Ok(None),
                    _ => Err(Status::internal("the stream ends within a message")),
                };
            };
            match frame?.into_data() {
                Ok(data) => self.received.push(data),
                Err(frame) => {
                    let status = frame.trailers_ref().and_then(Status::from_header_map);
                    if let Some(status) = status.filter(|status| status.code() != Code::Ok) {
                        return Err(status);
                    }
                }
            }
        }
    }
}

/// Frames that are not decoded yet.
#[derive(Debug, Default)]
struct Received {
    frames: VecDeque<Bytes>,
    /// Bytes in all of them.
    len: usize,
}

impl Received {
    fn push(&mut self, frame: Bytes) {
        self.len += frame.len();
        match self.frames.back_mut() {
            Some(last) if last.len() + frame.len() <= JOINED_BYTES_MAX => {
                *last = [last.as_ref(), frame.as_ref()].concat().into();
            }
            // An empty frame would hide the ones behind it.
            _ if frame.is_empty() => {}
            _ => self.frames.push_back(frame),
        }
    }

    /// The first message, if all of it is there.
    fn message<M: Message + Default>(&mut self) -> Result<Option<M>, Status> {
        let Some([compressed, prefix @ ..]) = self.prefix() else { return Ok(None) };
        if compressed != 0 {
            return Err(Status::unimplemented("a compressed message"));
        }
        let len = u32::from_be_bytes(prefix) as usize;
        if len > MESSAGE_BYTES_MAX {
            return Err(Status::out_of_range(format!(
                "a message of {len} bytes; the limit is {MESSAGE_BYTES_MAX}"
            )));
        }
        if self.len < PREFIX_BYTES + len {
            return Ok(None);
        }
        self.advance(PREFIX_BYTES);
        let message = M::decode(self.take(len));
        message.map(Some).map_err(|error| Status::internal(format!("no such message: {error}")))
    }

    fn prefix(&self) -> Option<[u8; PREFIX_BYTES]> {
        let mut bytes = self.frames.iter().flatten().copied();
        let mut prefix = [0; PREFIX_BYTES];
        for byte in &mut prefix {
            *byte = bytes.next()?;
        }
        Some(prefix)
    }
}

impl Buf for Received {
    fn remaining(&self) -> usize {
        self.len
    }

    fn chunk(&self) -> &[u8] {
        self.frames.front().map_or(&[], |frame| frame)
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.len, "as many bytes as there are");
        self.len -= count;
        while count > 0 {
            let frame = self.frames.front_mut().expect("there are more bytes");
            let here = count.min(frame.len());
            frame.advance(here);
            count -= here;
            if frame.is_empty() {
                self.frames.pop_front();
            }
        }
    }

    /// Shares the memory when all of it lies in one frame.
    fn copy_to_bytes(&mut self, len: usize) -> Bytes {
        let bytes = match self.frames.front() {
            Some(frame) if frame.len() >= len => frame.slice(..len),
            _ => {
                let mut bytes = Vec::with_capacity(len);
                for frame in &self.frames {
                    let here = frame.len().min(len - bytes.len());
                    bytes.extend_from_slice(&frame[..here]);
                }
                bytes.into()
            }
        };
        self.advance(len);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hw2_proto::v1::{self, VectorKind};

    fn chunk() -> Chunk {
        let values = Bytes::from((0..=255).cycle().take(600).collect::<Vec<u8>>());
        Chunk { kind: VectorKind::Gradient.into(), start: 300, crc32c: 7, values }
    }

    fn push_message(message: push_message::Message) -> PushMessage {
        PushMessage { message: Some(message) }
    }

    fn bytes(parcel: &Parcel) -> Vec<u8> {
        [parcel.head.as_ref(), parcel.values.as_deref().unwrap_or_default()].concat()
    }

    #[test]
    fn a_chunk_is_encoded_as_any_message() {
        let push = push_message(push_message::Message::Chunk(chunk()));
        assert_eq!(bytes(&Parcel::from(push.clone())), bytes(&Parcel::new(&push)));
        let pull = PullMessage { message: Some(pull_message::Message::Chunk(chunk())) };
        assert_eq!(bytes(&Parcel::from(pull.clone())), bytes(&Parcel::new(&pull)));
    }

    #[test]
    fn the_values_are_not_copied() {
        let chunk = chunk();
        let sent = chunk.values.as_ptr();
        let parcel = Parcel::from(push_message(push_message::Message::Chunk(chunk)));
        assert_eq!(parcel.values.as_ref().unwrap().as_ptr(), sent);
        let mut received = Received::default();
        received.push(parcel.head);
        received.push(parcel.values.unwrap());
        let message: PushMessage = received.message().unwrap().unwrap();
        let Some(push_message::Message::Chunk(chunk)) = message.message else { panic!("a chunk") };
        assert_eq!(chunk.values.as_ptr(), sent);
    }

    #[test]
    fn frames_may_be_cut_anywhere() {
        let head = push_message(push_message::Message::Head(v1::PushHead::default()));
        let messages = [head, push_message(push_message::Message::Chunk(chunk()))];
        let all = messages.clone().map(|message| bytes(&Parcel::from(message))).concat();
        for size in 1..all.len() {
            let mut received = Received::default();
            let mut decoded = Vec::new();
            for frame in all.chunks(size) {
                received.push(Bytes::copy_from_slice(frame));
                received.push(Bytes::new());
                while let Some(message) = received.message::<PushMessage>().unwrap() {
                    decoded.push(message);
                }
            }
            assert_eq!(decoded, messages);
            assert_eq!(received.len, 0);
        }
    }

    #[test]
    fn a_message_that_comes_byte_by_byte_takes_little_more_than_its_length() {
        let mut received = Received::default();
        for byte in bytes(&push_message(push_message::Message::Chunk(chunk())).into()) {
            received.push(Bytes::from_owner([byte]));
        }
        assert_eq!(received.frames.len(), received.len.div_ceil(JOINED_BYTES_MAX));
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let error = |bytes: &[u8]| {
            let mut received = Received::default();
            received.push(Bytes::copy_from_slice(bytes));
            received.message::<PushMessage>().unwrap_err()
        };
        assert_eq!(error(&[1, 0, 0, 0, 0]).code(), Code::Unimplemented);
        assert_eq!(error(&[0, 0xff, 0, 0, 0]).code(), Code::OutOfRange);
        assert_eq!(error(&[0, 0, 0, 0, 1, 0xff]).code(), Code::Internal);
    }
}
