//! A pull: wait for the directive, stream the parts that it needs and the worker lacks, end in it.

use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use hw2_common::ids::{Term, WorkerId};
use hw2_proto::v1::pull_message::Message;
use hw2_proto::v1::{PullMessage, PullRequest};
use tokio_stream::Stream;
use tonic::Status;

use super::Version;
use crate::coordinator::{Directive, Waiter};
use crate::driver::{Gone, Handle, PullAnswer};

/// Waits until the coordinator has something to say to the worker.
pub(super) async fn pull(driver: &Handle, request: PullRequest) -> Result<PullStream, Status> {
    let PullRequest { term, worker, weights_step, ema_step } = request;
    let (waiter, wait) = driver
        .call(move |driver| {
            driver.coordinator.check_term(Term(term))?;
            Ok::<_, Status>(driver.pull(WorkerId(worker)))
        })
        .await??;
    let mut forget = Forget::new(driver, waiter);
    let PullAnswer { directive, version } = wait.await.map_err(|_| Gone)?;
    forget.answered();
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

/// Tells the driver when a call that waits is cut off.
pub(super) struct Forget {
    driver: Handle,
    waiter: Option<Waiter>,
}

impl Forget {
    pub(super) fn new(driver: &Handle, waiter: Waiter) -> Self {
        Self { driver: driver.clone(), waiter: Some(waiter) }
    }

    pub(super) fn answered(&mut self) {
        self.waiter = None;
    }
}

impl Drop for Forget {
    fn drop(&mut self) {
        if let Some(waiter) = self.waiter {
            self.driver.post(move |driver| driver.forget(waiter));
        }
    }
}
