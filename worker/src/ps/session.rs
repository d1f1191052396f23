//! A worker's membership: from join to leave, or to the first error that ends it.

use std::future::poll_fn;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{Stream, StreamExt, iter};
use hw2_common::grpc::{self, Incoming, Parcel};
use hw2_common::ids::{Assignment, BlockId, GlobalStep, Term, WorkerId};
use hw2_proto::v1::heartbeat_reply::Standing;
use hw2_proto::v1::pull_message::Message;
use hw2_proto::v1::{self, PullMessage};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::Channel;
use tower_service::Service;

use super::client::timed;
use super::{Client, Contribution, Credit, Destination, Directive, Held, Outcome, PsError, Vector};

/// Times a push is sent before its connection counts as lost.
const PUSH_ATTEMPTS: u32 = 3;

/// Joined. Dropping it ends the heartbeats; the server then takes the leases back.
pub struct Session {
    client: Client,
    term: Term,
    worker: WorkerId,
    /// Cancelled when the server no longer counts on this worker, or cannot be asked.
    lost: CancellationToken,
}

/// The counts of one block of the evaluation set.
#[derive(Clone, Debug, PartialEq)]
pub struct EvaluationReport {
    /// Whose EMA weights were used.
    pub step: GlobalStep,
    /// Which images.
    pub block: BlockId,
    /// Images.
    pub samples: u32,
    /// Images whose label has the largest logit.
    pub top1: u32,
    /// Images whose label is among the five largest.
    pub top5: u32,
    /// Sum of the cross-entropies, in index order.
    pub loss_sum: f64,
    /// Images that could not be decoded and were replaced.
    pub bad_images: Vec<String>,
}

/// A push under way: the server receives what backward has finished.
pub struct Push {
    /// None once all has been sent.
    messages: Option<mpsc::UnboundedSender<Messages>>,
    reply: oneshot::Receiver<Result<v1::PushReply, PsError>>,
    assignment: Assignment,
    sent: usize,
}

/// A pull under way: weights arrive while this worker still computes with the old ones.
pub struct Pull {
    arrivals: mpsc::UnboundedReceiver<Arrived>,
    /// What arrived before its place was free, in order.
    early: Vec<Arrived>,
    answer: AbortOnDropHandle<Result<(Directive, Held), PsError>>,
}

/// Messages of a push, which share the contribution's memory.
type Messages = Box<dyn Iterator<Item = v1::PushMessage> + Send>;

impl Session {
    pub(super) fn begin(client: Client, term: Term, worker: WorkerId, every: Duration) -> Self {
        let lost = CancellationToken::new();
        let session = Self { client, term, worker, lost };
        let beat = heartbeats(&session, every);
        session.client.control_io.spawn(beat);
        session
    }

    /// The id the server gave.
    pub fn worker(&self) -> WorkerId {
        self.worker
    }

    /// Whether the server no longer counts on this worker, so that going on is a waste.
    pub fn is_lost(&self) -> bool {
        self.lost.is_cancelled()
    }

    /// Waits until there is something to do; afterwards `destination`, whose vectors were those of
    /// `held`, has all that it needs.
    ///
    /// # Errors
    /// Any error ends the session, and with it the use of what was held.
    pub fn pull(
        &self,
        held: Held,
        destination: &mut impl Destination,
    ) -> Result<(Directive, Held), PsError> {
        self.finish_pull(self.begin_pull(held, None), destination)
    }

    /// Waits for the end of a pull; afterwards `destination` has all that the directive needs.
    ///
    /// # Errors
    /// As [`Self::pull`].
    pub fn finish_pull(
        &self,
        pull: Pull,
        destination: &mut impl Destination,
    ) -> Result<(Directive, Held), PsError> {
        self.client.data_io.call(&self.client.stop, pull.finish(destination))
    }

    /// As [`Self::finish_push`] and then [`Self::pull`], at once.
    ///
    /// # Errors
    /// As [`Self::pull`].
    pub fn push_and_pull(
        &self,
        push: Push,
        whole: &Contribution,
        pull: Pull,
        destination: &mut impl Destination,
    ) -> Result<(Directive, Held), PsError> {
        self.client.data_io.call(&self.client.stop, async {
            let mut pulling = pin!(pull.finish(destination));
            let mut pushing = pin!(self.pushing(push, whole));
            tokio::select! {
                // A server that ends says so before it cuts off the push.
                biased;
                pulled = &mut pulling => {
                    let (directive, held) = pulled?;
                    // A server that ends, or knows this worker no more, need not take the push.
                    if !matches!(directive, Directive::Stop { .. } | Directive::Rejoin(_)) {
                        pushing.await?;
                    }
                    Ok((directive, held))
                }
                pushed = &mut pushing => {
                    pushed?;
                    pulling.await
                }
            }
        })
    }

    /// Asks what to do once `pushing` is in; what the server makes of it meanwhile is on its way from now
    /// on, and takes the place of what was `held`. Chunks are received and checked on the thread of the
    /// connection.
    pub fn begin_pull(&self, mut held: Held, pushing: Option<Assignment>) -> Pull {
        let pushing = pushing.map(|assignment| v1::Pushing {
            step: assignment.step.0,
            replica: assignment.replica.0,
        });
        let request = v1::PullRequest {
            term: self.term.0,
            worker: self.worker.0,
            weights_step: held.weights_step().map(|step| step.0),
            ema_step: held.ema_step().map(|step| step.0),
            pushing,
        };
        let data = self.client.data.clone();
        let (arrived, arrivals) = mpsc::unbounded_channel();
        let answer = AbortOnDropHandle::new(self.client.data_io.spawn(async move {
            let directive = pull(data, request, &mut held, &arrived).await?;
            Ok((directive, held))
        }));
        Pull { arrivals, early: Vec::new(), answer }
    }

    /// Asks whether `assignment` may be pushed.
    ///
    /// # Errors
    /// Any error ends the session.
    pub fn credit(&self, assignment: Assignment) -> Result<Credit, PsError> {
        let request = v1::CreditRequest {
            term: self.term.0,
            worker: self.worker.0,
            step: assignment.step.0,
            replica: assignment.replica.0,
        };
        let mut control = self.client.control.clone();
        self.client.control_io.call(&self.client.stop, async move {
            Ok(Credit::from(control.credit(timed(request)).await?.into_inner()))
        })
    }

    /// Opens a push for which there is credit.
    pub fn begin_push(&self, assignment: Assignment) -> Push {
        let (messages, receiver) = mpsc::unbounded_channel::<Messages>();
        let (answer, reply) = oneshot::channel();
        let data = self.client.data.clone();
        self.client.data_io.spawn(async move {
            let messages = UnboundedReceiverStream::new(receiver).flat_map(iter).map(Parcel::from);
            let reply = async {
                let reply = call(data, grpc::PUSH, messages).await?.message().await?;
                reply.ok_or_else(|| PsError::Protocol("a push without a reply".into()))
            };
            // Nobody waits any more when the session has ended.
            let _ = answer.send(reply.await);
        });
        let push = Push { messages: Some(messages), reply, assignment, sent: 0 };
        push.send([Contribution::head(self.term.0, self.worker.0, assignment)]);
        push
    }

    /// Sends what `push` has not sent yet and waits for the acknowledgement. If the connection
    /// breaks or the push is refused, the whole contribution is sent again: pushes are idempotent.
    ///
    /// # Errors
    /// Any error ends the session.
    pub fn finish_push(&self, push: Push, whole: &Contribution) -> Result<Outcome, PsError> {
        self.client.data_io.call(&self.client.stop, self.pushing(push, whole))
    }

    async fn pushing(&self, mut push: Push, whole: &Contribution) -> Result<Outcome, PsError> {
        for attempt in 1.. {
            push.send_all(whole);
            let Push { assignment, reply, .. } = push;
            let lost = |_| Err(PsError::Lost("the push was cut off".into()));
            match reply.await.unwrap_or_else(lost) {
                Ok(reply) => {
                    let outcome = outcome(reply);
                    tracing::debug!("{assignment}: {outcome:?}");
                    return Ok(outcome);
                }
                // Refused it may be for what happened to it on the way.
                Err(PsError::Lost(reason) | PsError::Refused(reason))
                    if attempt < PUSH_ATTEMPTS && !self.is_lost() =>
                {
                    tracing::warn!("push of {assignment} is sent again: {reason}");
                    push = self.begin_push(assignment);
                }
                Err(error) => return Err(error),
            }
        }
        unreachable!("the last attempt returns")
    }

    /// Reports the counts of one block.
    ///
    /// # Errors
    /// Any error ends the session.
    pub fn report(&self, report: EvaluationReport) -> Result<(), PsError> {
        let request = v1::EvaluationReport {
            term: self.term.0,
            worker: self.worker.0,
            step: report.step.0,
            block: report.block.0,
            samples: report.samples,
            top1: report.top1,
            top5: report.top5,
            loss_sum: report.loss_sum,
            bad_images: report.bad_images,
        };
        let mut control = self.client.control.clone();
        self.client.control_io.call(&self.client.stop, async move {
            control.report_evaluation(timed(request)).await?;
            Ok(())
        })
    }

    /// Gives every lease back, even while this process is being stopped.
    ///
    /// # Errors
    /// The server could not be told; it will take the leases back by itself.
    pub fn leave(self, reason: &str) -> Result<(), PsError> {
        let reason = reason.to_owned();
        let request = v1::LeaveRequest { term: self.term.0, worker: self.worker.0, reason };
        let mut control = self.client.control.clone();
        self.client.control_io.call(&CancellationToken::new(), async move {
            control.leave(timed(request)).await?;
            Ok(())
        })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.lost.cancel();
    }
}

impl Pull {
    /// Whether the server has said what to do, so that [`Session::finish_pull`] need not wait.
    pub fn is_answered(&self) -> bool {
        self.answer.is_finished()
    }

    /// Hands over what has arrived of the vectors from number `start` on, which nothing computes with any
    /// more.
    pub fn deliver(&mut self, destination: &mut impl Destination, start: usize) {
        while let Ok(arrived) = self.arrivals.try_recv() {
            self.early.push(arrived);
        }
        let free = |arrived: &mut Arrived| arrived.start >= start;
        for arrived in self.early.extract_if(.., free) {
            arrived.deliver(destination);
        }
    }

    /// Waits for the end and hands over everything.
    async fn finish(
        mut self,
        destination: &mut impl Destination,
    ) -> Result<(Directive, Held), PsError> {
        self.deliver(destination, 0);
        while let Some(arrived) = self.arrivals.recv().await {
            arrived.deliver(destination);
        }
        self.answer.await.expect("a pull does not panic")
    }
}

impl Push {
    /// What is pushed.
    pub fn assignment(&self) -> Assignment {
        self.assignment
    }

    /// Sends the next bucket, which backward has finished.
    pub fn send_next_bucket(&mut self, whole: &Contribution) {
        self.send_buckets(whole, self.sent + 1);
    }

    /// Sends what has not been sent yet.
    fn send_all(&mut self, whole: &Contribution) {
        self.send_buckets(whole, whole.bucket_count());
        self.send(whole.tail());
        self.messages = None; // the end of the stream
    }

    fn send_buckets(&mut self, whole: &Contribution, end: usize) {
        (self.sent..end).for_each(|index| self.send(whole.bucket(index)));
        self.sent = end;
    }

    fn send(&self, messages: impl IntoIterator<IntoIter: Send + 'static, Item = v1::PushMessage>) {
        let Some(stream) = &self.messages else { return };
        // A stream that has broken tells why when the push is finished.
        let _ = stream.send(Box::new(messages.into_iter()));
    }
}

/// A chunk that was checked.
struct Arrived {
    vector: Vector,
    start: usize,
    values: Bytes,
}

impl Arrived {
    fn deliver(self, destination: &mut impl Destination) {
        destination.receive(self.vector, self.start, self.values.as_chunks().0);
    }
}

/// Receives what the directive needs.
async fn pull(
    data: Channel,
    request: v1::PullRequest,
    held: &mut Held,
    arrived: &mpsc::UnboundedSender<Arrived>,
) -> Result<Directive, PsError> {
    let request = iter([Parcel::new(&request)]);
    let mut answer = call(data, grpc::PULL, request).await?;
    while let Some(PullMessage { message }) = answer.message().await? {
        match message {
            Some(Message::Chunk(chunk)) => {
                let vector = held.receive(&chunk);
                let vector = vector.map_err(|error| PsError::Protocol(error.to_string()))?;
                let (start, values) = (chunk.start as usize, chunk.values);
                // Nobody receives it any more when the session is being stopped.
                let _ = arrived.send(Arrived { vector, start, values });
            }
            Some(Message::Withdrawn(v1::Withdrawn {})) => held.withdraw(),
            Some(Message::Directive(directive)) => {
                let directive = Directive::try_from(directive)?;
                held.commit(&directive)?;
                return Ok(directive);
            }
            None => return Err(PsError::Protocol("an empty message in a pull".into())),
        }
    }
    Err(PsError::Protocol("a pull that ended without a directive".into()))
}

/// Calls a method of Data.
async fn call<S>(mut data: Channel, path: &'static str, messages: S) -> Result<Incoming, PsError>
where
    S: Stream<Item = Parcel> + Send + Unpin + 'static,
{
    poll_fn(|context| data.poll_ready(context)).await?;
    let response = data.call(grpc::request(path, messages)).await?;
    Ok(grpc::answer(response)?)
}

fn outcome(reply: v1::PushReply) -> Outcome {
    match reply.outcome() {
        v1::push_reply::Outcome::Counted => Outcome::Counted,
        v1::push_reply::Outcome::Duplicate => Outcome::Duplicate,
        v1::push_reply::Outcome::Dropped => Outcome::Dropped,
    }
}

/// Sends heartbeats until the session is lost, and notices when it is.
fn heartbeats(session: &Session, every: Duration) -> impl Future<Output = ()> + Send + 'static {
    let request = v1::HeartbeatRequest { term: session.term.0, worker: session.worker.0 };
    let mut control = session.client.control.clone();
    let lost = session.lost.clone();
    async move {
        let _lost = lost.clone().drop_guard();
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = lost.cancelled() => return,
            }
            match control.heartbeat(timed(request)).await {
                // A run that has ended says so in the next pull.
                Ok(reply) if reply.get_ref().standing() != Standing::Rejoin => {}
                Ok(reply) => return tracing::debug!("heartbeat: {}", reply.get_ref().reason),
                Err(status) => return tracing::debug!("heartbeat: {}", status.message()),
            }
        }
    }
}
