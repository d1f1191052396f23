//! Servers in this process, and what speaks to them.

use std::path::Path;
use std::sync::Arc;

use hw2_common::address::Address;
use hw2_common::checkpoint::Checkpoint;
use hw2_common::config::Config;
use hw2_common::job::{BUILD, Card, Job, PROTOCOL_VERSION};
use hw2_common::model::{Block, ConvSpec, ModelSpec};
use hw2_common::wire;
use hw2_proto::v1::control_client::ControlClient;
use hw2_proto::v1::{self, pull_request};
use hw2_server::{Clock, Listener, Outcome, ServerSetup, serve};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use crate::worker::Worker;

/// 3 replicas of 4 images, an evaluation of 5 blocks every 4 steps, 10 steps.
pub(crate) fn job(run_dir: &Path) -> Job {
    let mut config = Config {
        replicas: 3,
        batch_size: 4,
        checkpoint_every: 4,
        max_steps: 10,
        run_dir: run_dir.display().to_string(),
        model: ModelSpec {
            image_size: 8,
            blocks: vec![
                Block::ConvStack {
                    name: "stack".into(),
                    layers: vec![ConvSpec { channels: 3, kernel_size: 3, stride: 2 }],
                },
                Block::Dense { name: "dense".into(), units: 5, keep: 0.5, weight_decay: 1e-3 },
                Block::SoftmaxLinear { name: "softmax_linear".into() },
            ],
        },
        ..Config::default()
    };
    config.optimizer.lr_patience = 1;
    config.cluster.heartbeat_timeout_ms = 30_000;
    config.cluster.grace_ms = 5_000;
    config.cluster.wait_ms = 200;
    let dataset = Card {
        classes: vec!["a".into(), "b".into(), "c".into()],
        train: 30,
        val: 18,
        fingerprint: "dataset".into(),
    };
    Job { config, dataset }
}

/// A server in this process.
pub(crate) struct Served {
    pub(crate) address: Address,
    pub(crate) shutdown: CancellationToken,
    pub(crate) ended: JoinHandle<anyhow::Result<Outcome>>,
}

/// Starts a server of `job` on a free port.
pub(crate) fn start(job: &Job) -> Served {
    start_on(job, &"127.0.0.1:0".parse().unwrap())
}

pub(crate) fn start_on(job: &Job, address: &Address) -> Served {
    let listener = Listener::bind(address).unwrap();
    let address = listener.address().unwrap();
    let shutdown = CancellationToken::new();
    let setup = ServerSetup {
        trace: None,
        shards: 1,
        job: job.clone(),
        listener,
        shutdown: shutdown.clone(),
        clock: Clock::monotonic(),
    };
    Served { address, shutdown, ended: tokio::spawn(serve(setup)) }
}

impl Served {
    /// Waits for the end of a run that does not fail.
    pub(crate) async fn outcome(self) -> Outcome {
        self.ended.await.unwrap().unwrap()
    }

    /// Waits for the end of a run that fails; says why.
    pub(crate) async fn failure(self) -> String {
        format!("{:#}", self.ended.await.unwrap().unwrap_err())
    }
}

/// Of the checkpoint in which a run ended.
pub(crate) fn digest(outcome: &Outcome) -> String {
    Checkpoint::read(outcome.last_checkpoint.as_ref().unwrap()).unwrap().digest()
}

pub(crate) fn weights(step: u64) -> pull_request::Version {
    pull_request::Version::WeightsStep(step)
}

pub(crate) async fn connect(address: &Address) -> Channel {
    let uri = match address {
        Address::Tcp(address) => format!("http://{address}"),
        Address::Unix(path) => format!("unix:{}", path.display()),
    };
    Endpoint::from_shared(uri).unwrap().connect().await.unwrap()
}

pub(crate) async fn control(address: &Address) -> ControlClient<Channel> {
    ControlClient::new(connect(address).await)
}

/// What a worker of `job` says when it joins.
pub(crate) fn introduction(term: u64, job: &Job) -> v1::JoinRequest {
    v1::JoinRequest {
        term,
        protocol_version: PROTOCOL_VERSION,
        build: BUILD.into(),
        layout_fingerprint: job.layout().unwrap().fingerprint(),
        config_fingerprint: job.config.fingerprint(),
        dataset_fingerprint: job.dataset.fingerprint.clone(),
        numeric_kind: "fake".into(),
        label: "fake".into(),
    }
}

/// Starts `count` workers that work until the run ends.
pub(crate) async fn hire(address: &Address, count: usize) -> Vec<JoinHandle<Result<(), Status>>> {
    let mut workers = Vec::new();
    for _ in 0..count {
        let mut worker = Worker::join(address).await.unwrap();
        workers.push(tokio::spawn(async move {
            worker.work().await?;
            worker.leave().await;
            Ok(())
        }));
    }
    workers
}

/// Runs `job` to its end with `count` workers; the digest of its last checkpoint.
pub(crate) async fn run(job: &Job, count: usize) -> (Outcome, String) {
    let served = start(job);
    for worker in hire(&served.address, count).await {
        worker.await.unwrap().unwrap();
    }
    let outcome = served.outcome().await;
    let digest = digest(&outcome);
    (outcome, digest)
}

/// The chunks of `values`, which stand at `start` of their vector.
pub(crate) fn chunks(
    kind: v1::VectorKind,
    start: usize,
    values: Vec<f32>,
) -> impl Iterator<Item = v1::Chunk> {
    let checksums = wire::checksums(&values);
    wire::chunks(kind, start, &Arc::new(values), &checksums)
}
