//! A push: its chunks are handed to the data plane as they arrive, which finds out whether they are
//! good.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hw2_common::config::WireFormat;
use hw2_common::grpc::Incoming;
use hw2_common::ids::{Assignment, Term, WorkerId};
use hw2_common::job::Job;
use hw2_common::layout::{ParamLayout, Tensors as Layout};
use hw2_common::shard::Shard;
use hw2_common::trace;
use hw2_common::wire::{Arrivals, Assembly, Cut, Values, WireError};
use hw2_proto::v1::push_message::Message;
use hw2_proto::v1::{self, Chunk, PushMessage, VectorKind};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::convert;
use super::judge::Judge;
use crate::coordinator::{Outcome, Rest, Share, StepResult};
use crate::plane::{Fault, Plane, Staging, Tensors, first_unfit};

/// What every push needs.
#[derive(Clone)]
pub(crate) struct Receiver {
    judge: Judge,
    pub(super) term: Term,
    shard: Shard,
    layout: Arc<ParamLayout>,
    /// Of this server's parameters.
    cut: Cut,
    /// BN statistics that come here: all or none.
    statistics: usize,
    wire: WireFormat,
    pub(super) plane: Plane,
    pushing: Pushing,
    /// Longest pause between two messages: a push may begin before its gradient is computed.
    pub(super) pause_max: Duration,
}

/// One push stream for each worker: a newer one ends the older, whose connection may be dead.
#[derive(Clone, Default)]
struct Pushing(Arc<Mutex<Streams>>);

#[derive(Default)]
struct Streams {
    /// Number of streams that ever began.
    begun: u64,
    /// The newest of each worker, with its number.
    newest: HashMap<WorkerId, (u64, CancellationToken)>,
}

/// A worker's push stream.
struct Turn {
    pushing: Pushing,
    worker: WorkerId,
    number: u64,
    superseded: CancellationToken,
}

/// A push that was let in; it is reported as failed if it is dropped open.
struct Open {
    judge: Judge,
    assignment: Assignment,
    turn: Turn,
    is_open: bool,
}

impl Receiver {
    /// Of what `shard` has of the vectors of `job`, which are cut so there.
    pub(crate) fn new(
        judge: Judge,
        term: Term,
        job: &Job,
        layout: ParamLayout,
        (shard, cut): (Shard, Cut),
        plane: Plane,
    ) -> Self {
        Self {
            judge,
            term,
            shard,
            cut,
            statistics: if shard.is_coordinator() { layout.buffers.len() } else { 0 },
            layout: Arc::new(layout),
            wire: job.config.wire,
            plane,
            pushing: Pushing::default(),
            pause_max: Duration::from_millis(job.config.cluster.assignment_timeout_ms),
        }
    }

    /// Receives one push until it is complete, or a newer one of its worker begins.
    pub(super) async fn receive(
        &self,
        head: v1::PushHead,
        mut stream: Incoming,
    ) -> Result<Outcome, Status> {
        let v1::PushHead { term, worker, step, replica } = head;
        let (worker, assignment) = (WorkerId(worker), convert::assignment(step, replica));
        let Some(open) = self.admit(Term(term), worker, assignment).await? else {
            return self.discard(&mut stream).await;
        };
        let (share, tensors) = tokio::select! {
            read = self.read(worker, assignment, &mut stream) => read?,
            () = open.turn.superseded.cancelled() => {
                return Err(Status::cancelled("the worker pushes again elsewhere"));
            }
        };
        open.close();
        Ok(self.judge.receive(share, tensors).await??)
    }

    /// Asks whether the push is let in; none if it is to be read and dropped.
    async fn admit(
        &self,
        term: Term,
        worker: WorkerId,
        assignment: Assignment,
    ) -> Result<Option<Open>, Status> {
        let (judge, pushing) = (self.judge.clone(), self.pushing.clone());
        let open = move || Open { judge, assignment, turn: pushing.begin(worker), is_open: true };
        Ok(self.judge.admit(term, worker, assignment, open).await??)
    }

    async fn read(
        &self,
        worker: WorkerId,
        assignment: Assignment,
        stream: &mut Incoming,
    ) -> Result<(Share, Tensors), Status> {
        let mut arriving = Arriving::new(self, worker, assignment);
        while let Some(message) = self.next(stream).await? {
            match message {
                Message::Chunk(chunk) => arriving.chunk(chunk)?,
                Message::Result(result) => arriving.result(result)?,
                Message::Head(_) => return Err(Status::invalid_argument("a push has one head")),
            }
        }
        arriving.finish(worker).await
    }

    /// Reads on and keeps nothing.
    async fn discard(&self, stream: &mut Incoming) -> Result<Outcome, Status> {
        let all = self.cut.values().len() + self.statistics;
        let (mut values, mut messages) = (0, 0);
        while let Some(message) = self.next(stream).await? {
            values += match message {
                Message::Chunk(chunk) => chunk.values.len() / self.wire.of(chunk.kind()).bytes(),
                Message::Head(_) | Message::Result(_) => 0,
            };
            messages += 1;
            // A chunk has one value at least, and there is one result.
            if values > all || messages > all + 1 {
                return Err(Status::invalid_argument("more messages than a push has"));
            }
        }
        Ok(Outcome::Dropped)
    }

    /// The next message of a push; none at its end.
    async fn next(&self, stream: &mut Incoming) -> Result<Option<Message>, Status> {
        let message = tokio::time::timeout(self.pause_max, stream.message()).await;
        let message = message.map_err(|_| Status::deadline_exceeded("the push has stalled"))??;
        match message {
            Some(PushMessage { message: Some(message) }) => Ok(Some(message)),
            Some(_) => Err(Status::invalid_argument("an empty message in a push")),
            None => Ok(None),
        }
    }
}

impl Open {
    /// All of it is there.
    fn close(mut self) {
        self.is_open = false;
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if self.is_open {
            self.judge.push_failed(self.turn.worker, self.assignment);
        }
    }
}

impl Pushing {
    fn begin(&self, worker: WorkerId) -> Turn {
        let superseded = CancellationToken::new();
        let mut streams = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = streams.begun;
        streams.begun += 1;
        let newest = (number, superseded.clone());
        if let Some((_, older)) = streams.newest.insert(worker, newest) {
            older.cancel();
        }
        Turn { pushing: self.clone(), worker, number, superseded }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut streams = self.pushing.0.lock().unwrap_or_else(PoisonError::into_inner);
        if streams.newest.get(&self.worker).is_some_and(|(number, _)| *number == self.number) {
            streams.newest.remove(&self.worker);
        }
    }
}

/// What has come in of a push.
struct Arriving<'a> {
    receiver: &'a Receiver,
    assignment: Assignment,
    gradient: Arrivals,
    staging: Staging,
    statistics: Assembly,
    result: Option<v1::StepResult>,
    non_finite: Option<String>,
    trace: Option<trace::Buckets>,
}

impl<'a> Arriving<'a> {
    fn new(receiver: &'a Receiver, worker: WorkerId, assignment: Assignment) -> Self {
        let len = receiver.statistics;
        let wire = receiver.wire;
        let statistics = Assembly::new(Cut::whole(len), wire, vec![0.0; len]);
        Self {
            receiver,
            assignment,
            gradient: Arrivals::new(receiver.cut.clone(), wire),
            staging: receiver.plane.stage(assignment),
            statistics,
            result: None,
            non_finite: None,
            trace: trace::Buckets::new(&receiver.cut, "push", assignment.step, || {
                format!("from {worker}")
            }),
        }
    }

    fn chunk(&mut self, chunk: Chunk) -> Result<(), Status> {
        match chunk.kind() {
            VectorKind::Gradient => {
                let index =
                    self.gradient.add_unverified(&chunk).map_err(|error| invalid(&error))?;
                if let Some(trace) = &mut self.trace {
                    trace.passes(index);
                }
                self.staging.put(index, chunk).map_err(|error| invalid(&error))?;
            }
            VectorKind::BatchStatistics => {
                self.statistics.add(&chunk).map_err(|error| invalid(&error))?;
                let format = self.receiver.wire.of(chunk.kind());
                if let Some((index, value)) = first_unfit(Values::new(&chunk.values, format)) {
                    let buffers = &self.receiver.layout.buffers;
                    let what = place(chunk.start as usize + index, value, buffers);
                    self.non_finite.get_or_insert_with(|| format!("statistics of {what}"));
                }
            }
            _ => return Err(invalid(&WireError::UnexpectedKind(chunk.kind))),
        }
        Ok(())
    }

    fn result(&mut self, result: v1::StepResult) -> Result<(), Status> {
        // A worker's numbers are f32, and the sum of any number of these is finite.
        if !(result.loss as f32).is_finite() {
            self.non_finite.get_or_insert_with(|| format!("loss is {}", result.loss));
        }
        match self.result.replace(result) {
            None => Ok(()),
            Some(_) => Err(Status::invalid_argument("a push has one result")),
        }
    }

    /// Something is wrong with the gradient.
    fn fault(&mut self, fault: Fault) -> Result<(), Status> {
        match fault {
            Fault::Corrupt(error) => Err(invalid(&error)),
            // What is said of the gradient tells most: statistics and loss follow from the same
            // numbers.
            Fault::Unfit { index, value } => {
                let what = place(index, value, &self.receiver.layout.params);
                self.non_finite = Some(format!("gradient of {what}"));
                Ok(())
            }
        }
    }

    async fn finish(mut self, worker: WorkerId) -> Result<(Share, Tensors), Status> {
        let shard = self.receiver.shard;
        let result = match (self.result.take(), shard.is_coordinator()) {
            (None, true) => return Err(Status::invalid_argument("a push without result")),
            (Some(_), false) => {
                return Err(Status::invalid_argument("a result is for the first server"));
            }
            (result, _) => result,
        };
        self.gradient.check_complete().map_err(|error| invalid(&error))?;
        self.staging.verify().await.or_else(|fault| self.fault(fault))?;
        let digest = self.statistics.digest();
        let statistics = self.statistics.finish().map_err(|error| invalid(&error))?;
        let rest = |result| {
            let v1::StepResult { loss, samples, top1, bad_images } = result;
            Rest { statistics: digest, result: StepResult { loss, samples, top1 }, bad_images }
        };
        let share = Share {
            worker,
            assignment: self.assignment,
            shard: shard.index,
            gradient: self.gradient.digest(),
            non_finite: self.non_finite,
            rest: result.map(rest),
        };
        Ok((share, Tensors { gradient: self.staging, statistics }))
    }
}

fn invalid(error: &WireError) -> Status {
    Status::invalid_argument(error.to_string())
}

/// Names a value that does not fit, and its place in the vector.
fn place(index: usize, value: f32, layout: &Layout) -> String {
    let entry = layout.entries().iter().find(|entry| entry.range.contains(&index));
    let entry = entry.expect("the entries cover the vector");
    format!("{} is {value} at element {}", entry.name, index - entry.range.start)
}
