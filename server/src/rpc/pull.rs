//! A pull: wait for the directive, stream the parts that it needs and the worker lacks, end in it.
//!
//! The weights of the next step are streamed while they are made, before it is known whether the step
//! under way will commit; if they come to nothing, the worker is told.

use std::pin::Pin;
use std::sync::Arc;

use hw2_common::ids::{Term, WorkerId};
use hw2_proto::v1::pull_message::Message;
use hw2_proto::v1::{PullMessage, PullRequest, Withdrawn};
use tokio::sync::oneshot;
use tokio_stream::Stream;
use tonic::Status;

use super::convert;
use crate::coordinator::{Directive, Refusal, Waiter};
use crate::driver::{Driver, Gone, Handle, PullAnswer};
use crate::plane::{Next, Plane, Reading, Version};

/// Chunks, and the directive at the end.
pub(super) type PullStream = Pin<Box<dyn Stream<Item = Result<PullMessage, Status>> + Send>>;

/// Has the coordinator say something to the worker, and streams meanwhile.
pub(super) async fn pull(
    driver: &Handle,
    plane: &Plane,
    request: PullRequest,
) -> Result<PullStream, Status> {
    let PullRequest { term, worker, weights_step, ema_step, pushing } = request;
    let (term, worker) = (Term(term), WorkerId(worker));
    let pushing = pushing.map(|pushing| convert::assignment(pushing.step, pushing.replica));
    let waiting = Waiting::begin(driver, move |driver| driver.pull(term, worker, pushing)).await?;
    let pulling = Pulling {
        plane: plane.clone(),
        weights_step,
        ema_step,
        reading: None,
        stage: Stage::Waiting(waiting),
    };
    Ok(Box::pin(futures_util::stream::unfold(pulling, |mut pulling| async {
        let message = pulling.next().await?;
        let message = message.map(|message| PullMessage { message: Some(message) });
        Some((message, pulling))
    })))
}

/// One pull.
struct Pulling {
    plane: Plane,
    /// The versions that the worker holds.
    weights_step: Option<u64>,
    ema_step: Option<u64>,
    /// What is being streamed.
    reading: Option<Reading>,
    stage: Stage,
}

enum Stage {
    /// For the directive.
    Waiting(Waiting<PullAnswer>),
    /// What the directive needs.
    Sending(Directive),
    Over,
}

impl Pulling {
    async fn next(&mut self) -> Option<Result<Message, Status>> {
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Waiting(waiting) => Some(self.wait(waiting).await),
            Stage::Sending(directive) => Some(Ok(self.send(directive).await)),
            Stage::Over => None,
        }
    }

    /// Streams what is made beforehand until the directive comes.
    async fn wait(&mut self, mut waiting: Waiting<PullAnswer>) -> Result<Message, Status> {
        loop {
            if self.reading.is_none() {
                self.reading = self.plane.provisional(self.weights_step);
            }
            match self.look() {
                Next::Chunk(chunk) => {
                    self.stage = Stage::Waiting(waiting);
                    return Ok(Message::Chunk(chunk));
                }
                Next::Gone => {
                    if self.forget() {
                        self.stage = Stage::Waiting(waiting);
                        return Ok(Message::Withdrawn(Withdrawn {}));
                    }
                    continue;
                }
                Next::Later | Next::End => {}
            }
            tokio::select! {
                biased;
                answer = waiting.answer() => {
                    let PullAnswer { directive, version } = answer?;
                    if self.turn_to(&directive, version) {
                        self.stage = Stage::Sending(directive);
                        return Ok(Message::Withdrawn(Withdrawn {}));
                    }
                    return Ok(self.send(directive).await);
                }
                () = changed(&mut self.reading) => {}
            }
        }
    }

    /// Streams what the directive needs, and then the directive.
    async fn send(&mut self, directive: Directive) -> Message {
        loop {
            match self.look() {
                Next::Chunk(chunk) => {
                    self.stage = Stage::Sending(directive);
                    return Message::Chunk(chunk);
                }
                Next::End => return Message::Directive(directive.into()),
                Next::Gone => {
                    // The step was committed without this worker while it was reading.
                    let reason = "these weights are out of date".to_owned();
                    return Message::Directive(Directive::Wait(reason).into());
                }
                Next::Later => changed(&mut self.reading).await,
            }
        }
    }

    fn look(&mut self) -> Next {
        self.reading.as_mut().map_or(Next::End, Reading::next)
    }

    /// From now on streams what `directive` needs and the worker lacks. Says whether the worker has
    /// to forget what it was sent.
    fn turn_to(&mut self, directive: &Directive, version: Option<Arc<Version>>) -> bool {
        if let (Some(reading), Some(version)) = (&self.reading, &version)
            && reading.is_of(version)
        {
            return false;
        }
        let forget = self.forget();
        let held = match directive {
            Directive::Run { .. } => self.weights_step,
            Directive::Evaluate { .. } => self.ema_step,
            Directive::Wait(_) | Directive::Rejoin(_) | Directive::Stop { .. } => None,
        };
        let lacking = version.filter(|version| held != Some(version.step.0));
        self.reading = lacking.map(|version| version.read());
        forget
    }

    /// Stops streaming what came to nothing, and says whether the worker has some of it; that has taken
    /// the place of what it held.
    fn forget(&mut self) -> bool {
        let begun = self.reading.take().is_some_and(|reading| reading.has_begun());
        if begun {
            (self.weights_step, self.ema_step) = (None, None);
        }
        begun
    }
}

/// Waits until more of what is streamed is made; for ever if nothing is.
async fn changed(reading: &mut Option<Reading>) {
    match reading {
        Some(reading) => reading.changed().await,
        None => std::future::pending().await,
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
    pub(super) async fn answer(&mut self) -> Result<T, Status> {
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
