//! A run on two servers, whose link is cut at each kind of message: one of the two might as well
//! have been killed there.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use hw2_common::address::Address;
use hw2_common::checkpoint::{self, Checkpoint};
use hw2_common::ids::{Assignment, GlobalStep, ReplicaId};
use hw2_common::job::Job;
use hw2_common::model::Block;
use hw2_common::shard::Shard;
use hw2_proto::v1::directive::Directive;
use hw2_proto::v1::follower_order::Order;
use hw2_proto::v1::follower_report::Report;
use hw2_proto::v1::followers_client::FollowersClient;
use hw2_proto::v1::followers_server::{Followers, FollowersServer};
use hw2_proto::v1::push_message::Message;
use hw2_proto::v1::{FollowerOrder, FollowerReport, PushMessage, VectorKind};
use hw2_server::{Clock, FollowerSetup, Listener, Outcome, ServerSetup, follow, serve};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

use crate::fake::{chunks, connect, digest, job, run};
use crate::worker::Worker;

/// 2 replicas, 5 steps, an evaluation every 2, and vectors of some chunks.
fn wide_job(run_dir: &Path) -> Job {
    let mut job = job(run_dir);
    job.config.replicas = 2;
    job.config.max_steps = 5;
    job.config.checkpoint_every = 2;
    for block in &mut job.config.model.blocks {
        if let Block::Dense { units, .. } = block {
            *units = 3000;
        }
    }
    job
}

/// Far above what a run takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where a link is cut: at the so-manieth message of a kind.
#[derive(Clone, Copy, Debug)]
struct Cutting {
    kind: &'static str,
    number: usize,
    /// Whether the other side still gets it.
    passes: bool,
}

/// Stands between the coordinator and a follower, and cuts their link once.
#[derive(Clone)]
struct Proxy {
    coordinator: Address,
    cutting: Option<Cutting>,
    seen: Arc<AtomicUsize>,
    has_cut: Arc<AtomicBool>,
}

fn order_kind(order: &FollowerOrder) -> &'static str {
    match order.order.as_ref().unwrap() {
        Order::Welcome(_) => "welcome",
        Order::Begin(_) => "begin",
        Order::Admission(_) => "admission",
        Order::Count(_) => "count",
        Order::Forget(_) => "forget",
        Order::Commit(_) => "commit",
        Order::Discard(_) => "discard",
        Order::Save(_) => "save",
        Order::Stop(_) => "stop",
    }
}

fn report_kind(report: &FollowerReport) -> &'static str {
    match report.report.as_ref().unwrap() {
        Report::Enlistment(_) => "enlistment",
        Report::Ready(_) => "ready",
        Report::PushBegins(_) => "push begins",
        Report::ShareReceived(_) => "share received",
        Report::PushFailed(_) => "push failed",
        Report::UpdateMade(_) => "update made",
        Report::PartSaved(_) => "part saved",
        Report::Leaving(_) => "leaving",
        Report::Unfit(_) => "unfit",
    }
}

impl Proxy {
    /// Passes messages on until one side has gone or the link is to be cut.
    async fn pass<T>(
        self,
        mut from: Streaming<T>,
        to: mpsc::UnboundedSender<T>,
        kind: fn(&T) -> &'static str,
        cut: CancellationToken,
    ) {
        let _cut = cut.clone().drop_guard();
        loop {
            let message = tokio::select! {
                message = from.message() => message,
                () = cut.cancelled() => return,
            };
            let Ok(Some(message)) = message else { return };
            let is_it = self.cutting.filter(|cutting| cutting.kind == kind(&message));
            let is_it = is_it
                .filter(|cutting| self.seen.fetch_add(1, Ordering::SeqCst) + 1 == cutting.number);
            if is_it.is_none_or(|cutting| cutting.passes) && to.send(message).is_err() {
                return;
            }
            if is_it.is_some() {
                self.has_cut.store(true, Ordering::SeqCst);
                return;
            }
        }
    }

    async fn start(self) -> Address {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string().parse().unwrap();
        let incoming = futures_util::stream::unfold(listener, |listener| async {
            let connection = listener.accept().await.map(|(connection, _)| connection);
            Some((connection, listener))
        });
        let server = Server::builder().add_service(FollowersServer::new(self));
        tokio::spawn(server.serve_with_incoming(Box::pin(incoming)));
        address
    }
}

#[tonic::async_trait]
impl Followers for Proxy {
    type EnlistStream = Pin<Box<dyn Stream<Item = Result<FollowerOrder, Status>> + Send>>;

    async fn enlist(
        &self,
        request: Request<Streaming<FollowerReport>>,
    ) -> Result<Response<Self::EnlistStream>, Status> {
        let cut = CancellationToken::new();
        let (reports, reported) = mpsc::unbounded_channel();
        let (orders, ordered) = mpsc::unbounded_channel();
        let mut coordinator = FollowersClient::new(connect(&self.coordinator).await);
        let from = request.into_inner();
        tokio::spawn(self.clone().pass(from, reports, report_kind, cut.clone()));
        let from = coordinator.enlist(UnboundedReceiverStream::new(reported)).await?.into_inner();
        tokio::spawn(self.clone().pass(from, orders, order_kind, cut));
        Ok(Response::new(Box::pin(UnboundedReceiverStream::new(ordered).map(Ok))))
    }
}

/// Two servers of a run, with a proxy on their link.
struct Two {
    addresses: [Address; 2],
    coordinator: JoinHandle<anyhow::Result<Outcome>>,
    follower: JoinHandle<anyhow::Result<String>>,
    has_cut: Arc<AtomicBool>,
}

impl Two {
    async fn start(job: Job, cutting: Option<Cutting>) -> Self {
        let listen = || Listener::bind(&"127.0.0.1:0".parse().unwrap()).unwrap();
        let listeners = [listen(), listen()];
        let addresses = listeners.each_ref().map(|listener| listener.address().unwrap());
        let [first, second] = listeners;
        let shutdown = CancellationToken::new();
        let coordinator = tokio::spawn(serve(ServerSetup {
            job,
            listener: first,
            shutdown: shutdown.clone(),
            clock: Clock::monotonic(),
            trace: None,
            shards: 2,
        }));
        let (seen, has_cut) = (Arc::default(), Arc::<AtomicBool>::default());
        let proxy =
            Proxy { coordinator: addresses[0].clone(), cutting, seen, has_cut: has_cut.clone() };
        let follower = tokio::spawn(follow(FollowerSetup {
            shard: Shard { index: 1, count: 2 },
            coordinator: proxy.start().await,
            listener: second,
            run_dir: None,
            shutdown,
        }));
        Self { addresses, coordinator, follower, has_cut }
    }
}

/// A worker of both, as soon as they are ready.
async fn join(addresses: &[Address]) -> Worker {
    loop {
        match Worker::join_all(addresses).await {
            Ok(worker) => return worker,
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

/// Runs a job on two servers whose link is cut so.
async fn run_cut(cutting: Option<Cutting>) -> Outcome {
    let dir = tempfile::tempdir().unwrap();
    let Two { addresses, coordinator, follower, has_cut } =
        Two::start(wide_job(dir.path()), cutting).await;
    let worker = tokio::spawn(async move {
        loop {
            let mut worker = join(&addresses).await;
            if worker.work().await.is_ok() {
                worker.leave().await;
                return;
            }
        }
    });
    let outcome = coordinator.await.unwrap().unwrap();
    worker.await.unwrap();
    follower.await.unwrap().unwrap();
    assert_eq!(has_cut.load(Ordering::SeqCst), cutting.is_some(), "{cutting:?}");
    assert_eq!(digest(&outcome), *expected().await, "{cutting:?}");
    let checkpoint = Checkpoint::read(outcome.last_checkpoint.as_ref().unwrap()).unwrap();
    assert_eq!(checkpoint.state.progress.global_step.0, 5);
    outcome
}

/// The digest of the job on one server.
async fn expected() -> &'static String {
    static EXPECTED: tokio::sync::OnceCell<String> = tokio::sync::OnceCell::const_new();
    EXPECTED
        .get_or_init(|| async {
            let dir = tempfile::tempdir().unwrap();
            run(&wide_job(dir.path()), 1).await.1
        })
        .await
}

#[tokio::test]
async fn two_servers_give_the_checksum_of_one() {
    run_cut(None).await;
}

#[tokio::test]
async fn a_server_that_is_lost_at_any_message_changes_nothing() {
    let kinds = [
        ("enlistment", 1),
        ("welcome", 1),
        ("ready", 1),
        ("begin", 1),
        ("begin", 2),
        ("push begins", 1),
        ("push begins", 4),
        ("admission", 1),
        ("admission", 4),
        ("share received", 1),
        ("share received", 4),
        ("count", 1),
        ("count", 4),
        ("commit", 1),
        ("commit", 2),
        ("commit", 5),
        ("update made", 1),
        ("update made", 2),
        ("update made", 5),
        ("save", 1),
        ("save", 2),
        ("save", 4),
        ("part saved", 1),
        ("part saved", 2),
        ("part saved", 4),
    ];
    for (kind, number) in kinds {
        for passes in [false, true] {
            let cutting = Cutting { kind, number, passes };
            let ended = tokio::time::timeout(PATIENCE, run_cut(Some(cutting))).await;
            assert!(ended.is_ok(), "{cutting:?} has no end");
        }
    }
}

/// The first server alone decides, and has but a part of what is needed to replay it.
#[tokio::test]
async fn a_nan_in_a_followers_part_leaves_a_replay_bundle_of_all_parts() {
    let dir = tempfile::tempdir().unwrap();
    let Two { addresses, coordinator, follower, .. } = Two::start(wide_job(dir.path()), None).await;
    let mut worker = join(&addresses).await;
    let run = loop {
        match worker.pull().await.unwrap() {
            Directive::Run(run) => break run,
            other => assert!(worker.obey(other).await.unwrap()),
        }
    };
    let assignment = Assignment { step: GlobalStep(run.step), replica: ReplicaId(1) };
    let mut messages = worker.messages_to(1, assignment);
    let Some(Message::Chunk(first)) = &messages[1].message else { panic!("a chunk comes next") };
    let (start, bytes) = (first.start as usize, first.values.len());
    let mut values = vec![0.5; bytes / size_of::<f32>()];
    values[2] = f32::NAN;
    let chunk = chunks(VectorKind::Gradient, start, values).next().map(Message::Chunk);
    messages[1] = PushMessage { message: chunk };
    worker.push_to(1, messages).await.unwrap();
    worker.push_messages(worker.messages(assignment)).await.unwrap();
    let directive = worker.pull().await.unwrap();
    assert!(matches!(&directive, Directive::Stop(stop) if stop.reason.contains("NaN")));
    worker.leave().await;
    let failure = format!("{:#}", coordinator.await.unwrap().unwrap_err());
    for part in ["step 0, replica 1", "is NaN at element"] {
        assert!(failure.contains(part), "{failure}");
    }
    follower.await.unwrap().unwrap();

    let bundle = dir.path().join("replay/step-0-replica-1");
    let replayed = Checkpoint::read(&bundle.join(checkpoint::file_name(GlobalStep(0)))).unwrap();
    let begun = Checkpoint::read(&dir.path().join(checkpoint::file_name(GlobalStep(0)))).unwrap();
    assert_eq!(replayed, begun);
    let names = std::fs::read_dir(&bundle).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(names.count(), 3, "what it is about, the first server's part and the other's");
}
