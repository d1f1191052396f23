//! Streams that stall, break off, or are begun twice.

use hw2_common::ids::{Assignment, GlobalStep, ReplicaId};
use hw2_proto::v1::directive::Directive;
use hw2_proto::v1::pull_message::Message;
use hw2_proto::v1::push_reply::Outcome;
use hw2_proto::v1::{self, PushMessage, push_message};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use crate::fake::{chunks, digest, job, run, start, weights};
use crate::worker::Worker;

const FIRST: Assignment = Assignment { step: GlobalStep(0), replica: ReplicaId(0) };

/// A worker that has begun to push replica 0 of step 0, and goes no further.
async fn stalled(
    worker: &mut Worker,
) -> (mpsc::Sender<PushMessage>, tokio::task::JoinHandle<Result<Outcome, Status>>) {
    while !matches!(worker.pull_and_obey_evaluations().await, Directive::Run(_)) {}
    let (messages, received) = mpsc::channel(1);
    let mut data = worker.data.clone();
    let push = tokio::spawn(async move {
        let reply = data.push(ReceiverStream::new(received)).await?;
        Ok(reply.into_inner().outcome())
    });
    for message in worker.messages(FIRST).into_iter().take(2) {
        messages.send(message).await.unwrap();
    }
    // What it is pushing is not owed: the coordinator has let it in.
    while worker.pull_replicas().await != [1, 2] {}
    (messages, push)
}

impl Worker {
    async fn pull_and_obey_evaluations(&mut self) -> Directive {
        let directive = self.pull().await.unwrap();
        if matches!(directive, Directive::Evaluate(_)) {
            self.obey(directive.clone()).await.unwrap();
        }
        directive
    }

    async fn pull_replicas(&mut self) -> Vec<u32> {
        match self.pull().await.unwrap() {
            Directive::Run(run) => run.assignments.iter().map(|leased| leased.replica).collect(),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_newer_push_of_a_worker_ends_the_older() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let (_, expected) = run(&job(dirs[0].path()), 1).await;
    let served = start(&job(dirs[1].path()));
    let mut worker = Worker::join(&served.address).await.unwrap();
    let (_messages, older) = stalled(&mut worker).await;
    assert_eq!(worker.push(FIRST).await.unwrap(), Outcome::Counted);
    assert_eq!(older.await.unwrap().unwrap_err().code(), Code::Cancelled);
    worker.work().await.unwrap();
    assert_eq!(digest(&served.outcome().await), expected);
}

#[tokio::test]
async fn a_push_that_is_not_wanted_ends_none() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let (_, expected) = run(&job(dirs[0].path()), 1).await;
    let mut job = job(dirs[1].path());
    job.config.cluster.push_window = 1;
    let served = start(&job);
    let mut worker = Worker::join(&served.address).await.unwrap();
    let (messages, wanted) = stalled(&mut worker).await;
    let beyond = Assignment { replica: ReplicaId(2), ..FIRST };
    assert_eq!(worker.push(beyond).await.unwrap(), Outcome::Dropped);
    for message in worker.messages(FIRST).into_iter().skip(2) {
        messages.send(message).await.unwrap();
    }
    drop(messages);
    assert_eq!(wanted.await.unwrap().unwrap(), Outcome::Counted);
    worker.work().await.unwrap();
    assert_eq!(digest(&served.outcome().await), expected);
}

#[tokio::test]
async fn what_a_broken_push_would_have_brought_is_offered_again() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let (_, expected) = run(&job(dirs[0].path()), 1).await;
    let served = start(&job(dirs[1].path()));
    let mut worker = Worker::join(&served.address).await.unwrap();
    let (_messages, push) = stalled(&mut worker).await;
    push.abort();
    while worker.pull_replicas().await != [0, 1, 2] {}
    worker.work().await.unwrap();
    assert_eq!(digest(&served.outcome().await), expected);
}

/// It would otherwise be read from a stream that nobody reads to its end.
#[tokio::test]
async fn a_push_that_is_not_wanted_is_read_and_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut job = job(dir.path());
    job.config.cluster.push_window = 1;
    let served = start(&job);
    let mut worker = Worker::join(&served.address).await.unwrap();
    while !matches!(worker.pull_and_obey_evaluations().await, Directive::Run(_)) {}
    let beyond = Assignment { replica: ReplicaId(2), ..FIRST };
    assert_eq!(worker.push(beyond).await.unwrap(), Outcome::Dropped);
    let mut endless = worker.messages(beyond);
    let chunk = endless[1].clone();
    endless.extend(std::iter::repeat_n(chunk, 100));
    let status = worker.push_messages(endless).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    worker.work().await.unwrap();
    served.outcome().await;
}

/// A worker whose weights of step 1 are all but committed: replicas 0 and 1 are in, of replica 2
/// the gradient; and a pull of them, of which the first message is taken.
async fn provisional(
    worker: &mut Worker,
) -> (
    mpsc::Sender<PushMessage>,
    tokio::task::JoinHandle<Result<Outcome, Status>>,
    Streaming<v1::PullMessage>,
) {
    while !matches!(worker.pull_and_obey_evaluations().await, Directive::Run(_)) {}
    for replica in [0, 1] {
        let assignment = Assignment { replica: ReplicaId(replica), ..FIRST };
        assert_eq!(worker.push(assignment).await.unwrap(), Outcome::Counted);
    }
    let (messages, received) = mpsc::channel(1);
    let mut data = worker.data.clone();
    let push = tokio::spawn(async move {
        let reply = data.push(ReceiverStream::new(received)).await?;
        Ok(reply.into_inner().outcome())
    });
    let mut pull = worker.begin_pull(weights(1)).await.unwrap();
    for message in worker.messages(LAST).into_iter().take(2) {
        messages.send(message).await.unwrap();
    }
    let first = next(&mut pull).await;
    assert!(matches!(&first, Message::Chunk(chunk) if chunk.kind() == v1::VectorKind::Weights));
    (messages, push, pull)
}

const LAST: Assignment = Assignment { step: GlobalStep(0), replica: ReplicaId(2) };

async fn next(pull: &mut Streaming<v1::PullMessage>) -> Message {
    pull.message().await.unwrap().unwrap().message.unwrap()
}

#[tokio::test]
async fn weights_are_streamed_before_the_step_commits() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let (_, expected) = run(&job(dirs[0].path()), 1).await;
    let served = start(&job(dirs[1].path()));
    let mut worker = Worker::join(&served.address).await.unwrap();
    let (messages, push, mut pull) = provisional(&mut worker).await;
    for message in worker.messages(LAST).into_iter().skip(2) {
        messages.send(message).await.unwrap();
    }
    drop(messages);
    assert_eq!(push.await.unwrap().unwrap(), Outcome::Counted);
    assert!(matches!(next(&mut pull).await, Message::Committed(_)));
    worker.work().await.unwrap();
    assert_eq!(digest(&served.outcome().await), expected);
}

#[tokio::test]
async fn weights_made_with_a_push_that_breaks_off_are_withdrawn() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let (_, expected) = run(&job(dirs[0].path()), 1).await;
    let served = start(&job(dirs[1].path()));
    let mut worker = Worker::join(&served.address).await.unwrap();
    let (messages, push, mut pull) = provisional(&mut worker).await;
    drop(messages);
    assert_eq!(push.await.unwrap().unwrap_err().code(), Code::InvalidArgument);
    assert!(matches!(next(&mut pull).await, Message::Withdrawn(_)));
    assert!(pull.message().await.unwrap().is_none());
    worker.work().await.unwrap();
    assert_eq!(digest(&served.outcome().await), expected);
}

#[tokio::test]
async fn a_step_that_is_skipped_withdraws_its_weights_and_keeps_the_old_ones() {
    let dir = tempfile::tempdir().unwrap();
    let mut job = job(dir.path());
    job.config.on_non_finite = hw2_common::config::NonFinite::Skip;
    let served = start(&job);
    let mut worker = Worker::join(&served.address).await.unwrap();
    let (messages, push, mut pull) = provisional(&mut worker).await;
    let infinite = vec![f32::INFINITY; worker.layout.buffers.len()];
    let statistics = chunks(v1::VectorKind::BatchStatistics, 0, infinite);
    let statistics = statistics.map(push_message::Message::Chunk).map(Some);
    let result = worker.messages(LAST).pop().unwrap();
    for message in statistics.map(|message| PushMessage { message }).chain([result]) {
        messages.send(message).await.unwrap();
    }
    drop(messages);
    assert_eq!(push.await.unwrap().unwrap(), Outcome::Dropped);
    assert!(matches!(next(&mut pull).await, Message::Withdrawn(_)));
    let before = worker.weights.1.clone();
    while !matches!(worker.pull().await.unwrap(), Directive::Run(run) if run.step == 1) {}
    assert_eq!(worker.weights, (Some(1), before), "no update was made");
    served.shutdown.cancel();
    worker.work().await.unwrap();
    served.outcome().await;
}
