//! Streams that stall, break off, or are begun twice.

use hw2_common::ids::{Assignment, GlobalStep, ReplicaId};
use hw2_proto::v1::PushMessage;
use hw2_proto::v1::directive::Directive;
use hw2_proto::v1::push_reply::Outcome;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use crate::fake::{Worker, digest, job, run, start};

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
