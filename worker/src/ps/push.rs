//! A push under way: the servers receive what backward has finished.

use std::future::ready;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use futures_util::stream::{StreamExt, once, unfold};
use hw2_common::grpc::{self, Parcel};
use hw2_common::ids::{Assignment, GlobalStep};
use hw2_common::shard::Shard;
use hw2_common::trace;
use hw2_proto::v1::{self, PushMessage};
use tokio::sync::{Notify, oneshot};

use super::servers::{Holding, Server};
use super::session::call;
use super::{Contribution, PsError};

/// A push that was begun: a part of it to each server.
pub(super) struct Push {
    parts: Vec<PartPush>,
    assignment: Assignment,
}

/// What of a push goes to one server.
pub(super) struct PartPush {
    outbox: Arc<Outbox>,
    reply: oneshot::Receiver<Result<v1::PushReply, PsError>>,
    shard: Shard,
    /// The values that the server has.
    values: Range<usize>,
    step: GlobalStep,
    /// Buckets so far.
    sent: usize,
}

/// Messages of a push, which share the contribution's memory.
type Messages = Box<dyn Iterator<Item = PushMessage> + Send>;

/// What is to be sent, the newest first: the next forward pass needs first what backward makes
/// last.
#[derive(Default)]
struct Outbox {
    waiting: Mutex<Waiting>,
    changed: Notify,
}

#[derive(Default)]
struct Waiting {
    messages: Vec<Messages>,
    /// Whether nothing more will come.
    is_complete: bool,
}

impl Push {
    pub(super) fn new(assignment: Assignment, parts: Vec<PartPush>) -> Self {
        Self { parts, assignment }
    }

    /// What is pushed.
    pub(super) fn assignment(&self) -> Assignment {
        self.assignment
    }

    /// Sends those of the first `count` buckets that have not been sent yet.
    pub(super) fn send_buckets(&mut self, whole: &Contribution, count: usize) {
        self.parts.iter_mut().for_each(|part| part.send_buckets(whole, count));
    }

    /// Sends what has not been sent yet.
    pub(super) fn send_all(&mut self, whole: &Contribution) {
        self.parts.iter_mut().for_each(|part| part.send_all(whole));
    }

    /// In the order of the servers.
    pub(super) fn into_parts(self) -> Vec<PartPush> {
        self.parts
    }
}

impl PartPush {
    /// Sends what it is given to `server`, `head` first.
    pub(super) fn begin(server: &Server, head: PushMessage, step: GlobalStep) -> Self {
        let outbox = Arc::<Outbox>::default();
        let next = |outbox: Arc<Outbox>| async { Some((outbox.next().await?, outbox)) };
        let messages = once(ready(head)).chain(unfold(Arc::clone(&outbox), next));
        let (answer, reply) = oneshot::channel();
        let data = server.data.clone();
        server.io.spawn(async move {
            let messages = Box::pin(messages.map(Parcel::from));
            let reply = async {
                let reply = call(data, grpc::PUSH, messages).await?.message().await?;
                reply.ok_or_else(|| PsError::Protocol("a push without a reply".into()))
            };
            // Nobody waits any more when the session has ended.
            let _ = answer.send(reply.await);
        });
        let Holding { shard, params, .. } = &server.holding;
        Self { outbox, reply, shard: *shard, values: params.values(), step, sent: 0 }
    }

    /// Sends what has not been sent yet.
    pub(super) fn send_all(&mut self, whole: &Contribution) {
        let mut waiting = self.outbox.waiting();
        if !waiting.is_complete {
            if self.shard.is_coordinator() {
                waiting.messages.push(Box::new(whole.tail()));
            }
            drop(waiting);
            self.send_buckets(whole, whole.bucket_count());
            self.outbox.complete();
        }
    }

    /// Waits for the server's word.
    pub(super) async fn reply(mut self) -> Result<v1::push_reply::Outcome, PsError> {
        let reply = (&mut self.reply).await;
        let reply = reply.unwrap_or_else(|_| Err(PsError::Lost("the push was cut off".into())))?;
        Ok(reply.outcome())
    }

    fn send_buckets(&mut self, whole: &Contribution, end: usize) {
        for index in self.sent..end {
            let bucket = whole.bucket(index, &self.values);
            let (began, step, shard) = (Instant::now(), self.step, self.shard);
            let layers = whole.layers(index).to_owned();
            // Asked for when the transport has taken all of it.
            let taken = std::iter::from_fn(move || {
                let track = if shard.count == 1 { "push".into() } else { format!("push, {shard}") };
                trace::span(&track, began, step, || format!("push {layers}"));
                None
            });
            self.outbox.add(Box::new(bucket.chain(taken)));
        }
        self.sent = end;
    }
}

/// Nobody will add the rest of a push that is given up.
impl Drop for PartPush {
    fn drop(&mut self) {
        self.outbox.complete();
    }
}

impl Outbox {
    fn add(&self, messages: Messages) {
        self.waiting().messages.push(messages);
        self.changed.notify_one();
    }

    fn complete(&self) {
        self.waiting().is_complete = true;
        self.changed.notify_one();
    }

    /// Waits for the next message; none after the last.
    async fn next(&self) -> Option<PushMessage> {
        loop {
            if let Some(next) = self.waiting().next() {
                return next;
            }
            self.changed.notified().await;
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// None if it is still to come.
    fn next(&mut self) -> Option<Option<PushMessage>> {
        while let Some(newest) = self.messages.last_mut() {
            match newest.next() {
                Some(message) => return Some(Some(message)),
                None => drop(self.messages.pop()),
            }
        }
        self.is_complete.then_some(None)
    }
}

#[cfg(test)]
mod tests {
    use hw2_proto::v1::push_message::Message;

    use super::*;

    fn messages(replicas: std::ops::Range<u32>) -> Messages {
        let head = |replica| Message::Head(v1::PushHead { replica, ..v1::PushHead::default() });
        Box::new(replicas.map(move |replica| PushMessage { message: Some(head(replica)) }))
    }

    async fn next(outbox: &Outbox) -> Option<u32> {
        match outbox.next().await?.message? {
            Message::Head(head) => Some(head.replica),
            _ => None,
        }
    }

    #[tokio::test]
    async fn what_is_newer_overtakes_what_was_not_sent_yet() {
        let outbox = Arc::new(Outbox::default());
        let waiting = tokio::spawn({
            let outbox = Arc::clone(&outbox);
            async move { next(&outbox).await }
        });
        tokio::task::yield_now().await;
        outbox.add(messages(0..3));
        assert_eq!(waiting.await.unwrap(), Some(0));
        outbox.add(messages(10..12));
        outbox.complete();
        let mut rest = Vec::new();
        while let Some(replica) = next(&outbox).await {
            rest.push(replica);
        }
        assert_eq!(rest, [10, 11, 1, 2]);
    }
}
