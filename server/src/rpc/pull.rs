//! A pull: wait for the directive, stream the parts that it needs and the worker lacks, end in it.

use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use hw2_common::ids::{Term, WorkerId};
use hw2_proto::v1::pull_message::Message;
use hw2_proto::v1::{PullMessage, PullRequest};
use tokio::sync::oneshot;
use tokio_stream::Stream;
use tonic::Status;

use crate::coordinator::{Directive, Refusal, Waiter};
use crate::driver::{Driver, Gone, Handle, PullAnswer};
use crate::plane::Version;

/// Waits until the coordinator has something to say to the worker.
pub(super) async fn pull(driver: &Handle, request: PullRequest) -> Result<PullStream, Status> {
    let PullRequest { term, worker, weights_step, ema_step } = request;
    let (term, worker) = (Term(term), WorkerId(worker));
    let waiting = Waiting::begin(driver, move |driver| driver.pull(term, worker)).await?;
    let PullAnswer { directive, version } = waiting.answer().await?;
    let held = match &directive {
        Directive::Run { .. } => weights_step,
        Directive::Evaluate { .. } => ema_step,
        _ => None,
    };
    let lacks = |version: &Arc<Version>| held != Some(version.step);
    let version =
        version.filter(lacks).map(|version| (Arc::downgrade(&version), version.chunks.len()));
    Ok(PullStream { version, sent: 0, directive: Some(directive) })
}

/// Chunks, and the directive at the end.
pub(super) struct PullStream {
    /// What is streamed, with its number of chunks.
    version: Option<(Weak<Version>, usize)>,
    sent: usize,
    /// None once it is sent.
    directive: Option<Directive>,
}

impl PullStream {
    fn next_message(&mut self) -> Option<Message> {
        if let Some((version, count)) = &self.version
            && self.sent < *count
            && self.directive.is_some()
        {
            // Held only for this moment: the chunk is copied into the connection's buffer next.
            let chunk = version.upgrade().map(|version| version.chunks[self.sent].clone());
            self.sent += 1;
            if chunk.is_none() {
                // The step was committed without this worker while it was reading.
                self.directive = None;
                let reason = "these weights are out of date".to_owned();
                return Some(Message::Directive(Directive::Wait(reason).into()));
            }
            return chunk.map(Message::Chunk);
        }
        self.directive.take().map(|directive| Message::Directive(directive.into()))
    }
}

impl Stream for PullStream {
    type Item = Result<PullMessage, Status>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let message = self.next_message();
        Poll::Ready(message.map(|message| Ok(PullMessage { message: Some(message) })))
    }
}

/// A call that is answered later. When it is cut off, the driver forgets it: an answer would give
/// a lease to nobody.
pub(super) struct Waiting<T> {
    driver: Handle,
    waiter: Option<Waiter>,
    wait: oneshot::Receiver<T>,
}

impl<T: Send + 'static> Waiting<T> {
    /// Has the driver begin the call.
    pub(super) async fn begin(
        driver: &Handle,
        call: impl FnOnce(&mut Driver) -> Result<(Waiter, oneshot::Receiver<T>), Refusal>
        + Send
        + 'static,
    ) -> Result<Self, Status> {
        let handle = driver.clone();
        // Made on the driver's side: then it is there even if this call is cut off right now.
        let begin = move |driver: &mut Driver| {
            let (waiter, wait) = call(driver)?;
            Ok::<_, Refusal>(Self { driver: handle, waiter: Some(waiter), wait })
        };
        Ok(driver.call(begin).await??)
    }

    /// Waits for the answer.
    pub(super) async fn answer(mut self) -> Result<T, Status> {
        let answer = (&mut self.wait).await.map_err(|_| Gone)?;
        self.waiter = None;
        Ok(answer)
    }
}

impl<T> Drop for Waiting<T> {
    fn drop(&mut self) {
        if let Some(waiter) = self.waiter {
            self.driver.post(move |driver| driver.forget(waiter));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hw2_common::ids::{GlobalStep, ReplicaId};
    use hw2_proto::v1::{self, Chunk};

    use crate::coordinator::Leased;

    fn stream(version: &Arc<Version>) -> PullStream {
        let assignments = vec![Leased { replica: ReplicaId(0), credit: true }];
        let directive = Directive::Run { step: GlobalStep(7), assignments };
        let version = Some((Arc::downgrade(version), version.chunks.len()));
        PullStream { version, sent: 0, directive: Some(directive) }
    }

    fn version() -> Arc<Version> {
        Arc::new(Version { step: 7, chunks: vec![Chunk::default(); 2] })
    }

    fn is_run(message: Option<Message>) -> bool {
        let Some(Message::Directive(directive)) = message else { return false };
        matches!(directive.directive, Some(v1::directive::Directive::Run(_)))
    }

    #[test]
    fn all_chunks_come_before_the_directive_and_nothing_after() {
        let version = version();
        let mut stream = stream(&version);
        assert!(matches!(stream.next_message(), Some(Message::Chunk(_))));
        assert!(matches!(stream.next_message(), Some(Message::Chunk(_))));
        assert!(is_run(stream.next_message()));
        assert_eq!(stream.next_message(), None);
    }

    #[test]
    fn a_reader_that_is_too_slow_is_told_to_wait_and_keeps_no_version_alive() {
        let version = version();
        let mut stream = stream(&version);
        assert!(matches!(stream.next_message(), Some(Message::Chunk(_))));
        assert_eq!(Arc::strong_count(&version), 1);
        drop(version);
        let Some(Message::Directive(directive)) = stream.next_message() else { panic!("an end") };
        assert!(matches!(directive.directive, Some(v1::directive::Directive::Wait(_))));
        assert_eq!(stream.next_message(), None);
    }

    #[test]
    fn a_version_that_was_sent_whole_stays_valid() {
        let version = version();
        let mut stream = stream(&version);
        stream.next_message();
        stream.next_message();
        drop(version);
        assert!(is_run(stream.next_message()));
    }
}
