//! A push under way: the server receives what backward has finished.

use std::time::Instant;

use futures_util::stream::{StreamExt, iter};
use hw2_common::grpc::{self, Parcel};
use hw2_common::ids::Assignment;
use hw2_common::trace;
use hw2_proto::v1::{self, PushMessage};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::Channel;

use super::io_thread::IoThread;
use super::session::call;
use super::{Contribution, Outcome, PsError};

/// A push that was begun.
pub struct Push {
    /// None once all has been sent.
    messages: Option<mpsc::UnboundedSender<Messages>>,
    reply: oneshot::Receiver<Result<v1::PushReply, PsError>>,
    assignment: Assignment,
    sent: usize,
}

/// Messages of a push, which share the contribution's memory.
type Messages = Box<dyn Iterator<Item = PushMessage> + Send>;

impl Push {
    /// Sends what it is given on `io`, `head` first.
    pub(super) fn begin(
        io: &IoThread,
        data: Channel,
        head: PushMessage,
        assignment: Assignment,
    ) -> Self {
        let (messages, receiver) = mpsc::unbounded_channel::<Messages>();
        let (answer, reply) = oneshot::channel();
        io.spawn(async move {
            let messages = UnboundedReceiverStream::new(receiver).flat_map(iter).map(Parcel::from);
            let reply = async {
                let reply = call(data, grpc::PUSH, messages).await?.message().await?;
                reply.ok_or_else(|| PsError::Protocol("a push without a reply".into()))
            };
            // Nobody waits any more when the session has ended.
            let _ = answer.send(reply.await);
        });
        let push = Self { messages: Some(messages), reply, assignment, sent: 0 };
        push.send([head]);
        push
    }

    /// What is pushed.
    pub fn assignment(&self) -> Assignment {
        self.assignment
    }

    /// Sends the next bucket, which backward has finished.
    pub fn send_next_bucket(&mut self, whole: &Contribution) {
        self.send_buckets(whole, self.sent + 1);
    }

    /// Sends what has not been sent yet.
    pub fn send_all(&mut self, whole: &Contribution) {
        if self.messages.is_some() {
            self.send_buckets(whole, whole.bucket_count());
            self.send(whole.tail());
            self.messages = None; // the end of the stream
        }
    }

    /// Waits for the server's word.
    pub(super) async fn reply(self) -> Result<Outcome, PsError> {
        let reply = self.reply.await;
        let reply = reply.unwrap_or_else(|_| Err(PsError::Lost("the push was cut off".into())))?;
        Ok(match reply.outcome() {
            v1::push_reply::Outcome::Counted => Outcome::Counted,
            v1::push_reply::Outcome::Duplicate => Outcome::Duplicate,
            v1::push_reply::Outcome::Dropped => Outcome::Dropped,
        })
    }

    fn send_buckets(&mut self, whole: &Contribution, end: usize) {
        for index in self.sent..end {
            let (began, step, layers) =
                (Instant::now(), self.assignment.step, whole.layers(index).to_owned());
            // Asked for when the transport has taken all of it.
            let taken = std::iter::from_fn(move || {
                trace::span("push", began, step, || format!("push {layers}"));
                None
            });
            self.send(whole.bucket(index).chain(taken));
        }
        self.sent = end;
    }

    fn send(&self, messages: impl IntoIterator<IntoIter: Send + 'static, Item = PushMessage>) {
        let Some(stream) = &self.messages else { return };
        // A stream that has broken tells why when the push is finished.
        let _ = stream.send(Box::new(messages.into_iter()));
    }
}
