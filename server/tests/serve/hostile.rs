//! Messages that are wrong in every way: refused with a name, and the state is unchanged.

use hw2_common::ids::{Assignment, GlobalStep, ReplicaId};
use hw2_common::job::{BUILD, PROTOCOL_VERSION};
use hw2_common::wire::CHUNK_VALUES;
use hw2_proto::v1::directive::Directive;
use hw2_proto::v1::push_message::Message;
use hw2_proto::v1::push_reply::Outcome;
use hw2_proto::v1::{self, PushMessage, VectorKind};
use tonic::Code;

use crate::fake::{chunks, control, digest, introduction, job, run, start};
use crate::worker::Worker;

/// Joined, with the weights of step 0.
async fn at_step_0(address: &hw2_common::address::Address) -> Worker {
    let mut worker = Worker::join(address).await.unwrap();
    loop {
        match worker.pull().await.unwrap() {
            Directive::Run(run) => {
                assert_eq!(run.step, 0);
                return worker;
            }
            other => assert!(worker.obey(other).await.unwrap()),
        }
    }
}

fn chunk(kind: VectorKind, start: usize, values: Vec<f32>) -> Message {
    let chunk = chunks(kind, 0, values).next().unwrap();
    Message::Chunk(v1::Chunk { start: start as u64, ..chunk })
}

#[tokio::test]
async fn bad_pushes_are_invalid_and_change_nothing() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let (_, expected) = run(&job(dirs[0].path()), 1).await;
    let served = start(&job(dirs[1].path()));
    let mut worker = at_step_0(&served.address).await;
    let assignment = Assignment { step: GlobalStep(0), replica: ReplicaId(1) };
    let good: Vec<Message> =
        worker.messages(assignment).into_iter().map(|message| message.message.unwrap()).collect();
    let [head, gradient, statistics, result] = &good[..] else { panic!("four messages") };
    let Message::Chunk(whole) = gradient else { panic!("a chunk") };
    let params = worker.layout.params.len();
    let corrupt = v1::Chunk { crc32c: whole.crc32c ^ 1, ..whole.clone() };
    let odd = v1::Chunk { values: whole.values.slice(..whole.values.len() - 1), ..whole.clone() };
    let replica =
        |replica| v1::PushHead { term: worker.term, worker: worker.worker, step: 0, replica };
    let result_of = |samples, top1| {
        Message::Result(v1::StepResult { loss: 1.0, samples, top1, bad_images: Vec::new() })
    };
    let cases: Vec<(&str, Vec<Message>)> = vec![
        ("begins with its head", vec![]),
        ("begins with its head", vec![gradient.clone(), head.clone()]),
        ("one head", vec![head.clone(), head.clone()]),
        ("CRC32C", vec![head.clone(), Message::Chunk(corrupt)]),
        ("no chunk", vec![head.clone(), Message::Chunk(odd)]),
        ("no chunk", vec![head.clone(), chunk(VectorKind::Gradient, params, vec![1.0])]),
        ("no chunk", vec![head.clone(), chunk(VectorKind::Gradient, 0, vec![1.0; CHUNK_VALUES])]),
        ("no chunk", vec![head.clone(), chunk(VectorKind::Gradient, usize::MAX, vec![1.0; 2])]),
        ("came twice", vec![head.clone(), gradient.clone(), gradient.clone()]),
        ("does not belong", vec![head.clone(), chunk(VectorKind::Weights, 0, vec![1.0])]),
        ("does not belong", vec![head.clone(), chunk(VectorKind::Unspecified, 0, vec![1.0])]),
        ("without result", vec![head.clone(), gradient.clone(), statistics.clone()]),
        ("only 0 of", vec![head.clone(), statistics.clone(), result.clone()]),
        ("values arrived", vec![head.clone(), gradient.clone(), result.clone()]),
        ("one result", vec![head.clone(), result.clone(), result.clone()]),
        ("replica 3", vec![Message::Head(replica(3))]),
        ("of 5 samples", vec![head.clone(), gradient.clone(), statistics.clone(), result_of(5, 1)]),
    ];
    for (what, messages) in cases {
        let messages = messages.into_iter().map(Some).map(|message| PushMessage { message });
        let status = worker.push_messages(messages.collect()).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{what}: {status}");
        assert!(status.message().contains(what), "{what}: {status}");
    }
    let empty = vec![PushMessage { message: Some(head.clone()) }, PushMessage { message: None }];
    assert_eq!(worker.push_messages(empty).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(worker.status().await.workers[0].contributions, 0);
    worker.work().await.unwrap();
    assert_eq!(digest(&served.outcome().await), expected);
}

#[tokio::test]
async fn a_repeat_that_is_damaged_is_refused_and_not_taken_for_other_bits() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let (_, expected) = run(&job(dirs[0].path()), 1).await;
    let served = start(&job(dirs[1].path()));
    let mut worker = at_step_0(&served.address).await;
    let assignment = Assignment { step: GlobalStep(0), replica: ReplicaId(1) };
    assert_eq!(worker.push(assignment).await.unwrap(), Outcome::Counted);
    let mut messages = worker.messages(assignment);
    let Some(Message::Chunk(chunk)) = &mut messages[1].message else { panic!("a chunk") };
    chunk.crc32c ^= 1;
    let status = worker.push_messages(messages).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    assert!(status.message().contains("CRC32C"), "{status}");
    worker.work().await.unwrap();
    assert_eq!(digest(&served.outcome().await), expected);
}

#[tokio::test]
async fn a_message_that_is_too_large_is_refused_before_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let served = start(&job(dir.path()));
    let mut worker = at_step_0(&served.address).await;
    let assignment = Assignment { step: GlobalStep(0), replica: ReplicaId(0) };
    let mut messages = worker.messages(assignment);
    let values = vec![0_u8; 2 << 20].into();
    let chunk = v1::Chunk { kind: VectorKind::Gradient.into(), start: 0, crc32c: 0, values };
    messages.insert(1, PushMessage { message: Some(Message::Chunk(chunk)) });
    let status = worker.push_messages(messages).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status}");
    let mut worker = Worker::join(&served.address).await.unwrap();
    worker.status().await;
    served.shutdown.cancel();
    worker.work().await.unwrap();
    served.outcome().await;
}

#[tokio::test]
async fn other_terms_steps_and_workers_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let served = start(&job(dir.path()));
    let mut worker = at_step_0(&served.address).await;
    let first = Assignment { step: GlobalStep(0), replica: ReplicaId(0) };
    for replica in 0..3 {
        let replica = ReplicaId(replica);
        assert_eq!(worker.push(Assignment { replica, ..first }).await.unwrap(), Outcome::Counted);
    }
    while worker.status().await.global_step == 0 {}
    assert_eq!(worker.push(first).await.unwrap(), Outcome::Dropped, "an older step");
    let head = |term, number, step| {
        let head = v1::PushHead { term, worker: number, step, replica: 0 };
        vec![PushMessage { message: Some(Message::Head(head)) }]
    };
    let (term, number) = (worker.term, worker.worker);
    for (head, code) in [
        (head(term ^ 1, number, 1), Code::Aborted),
        (head(term, 77, 1), Code::Aborted),
        (head(term, number, 9), Code::FailedPrecondition),
    ] {
        assert_eq!(worker.push_messages(head).await.unwrap_err().code(), code);
    }
    let stale = v1::HeartbeatRequest { term: term ^ 1, worker: number };
    assert_eq!(worker.control.heartbeat(stale).await.unwrap_err().code(), Code::Aborted);
    let stale = v1::LeaveRequest { term: term ^ 1, worker: number, reason: String::new() };
    assert_eq!(worker.control.leave(stale).await.unwrap_err().code(), Code::Aborted);
    let stranger = v1::HeartbeatRequest { term, worker: 77 };
    let reply = worker.control.heartbeat(stranger).await.unwrap().into_inner();
    assert_eq!(reply.standing(), v1::heartbeat_reply::Standing::Rejoin);
    worker.worker = 77;
    assert!(matches!(worker.pull().await.unwrap(), Directive::Rejoin(_)));
    worker.term ^= 1;
    assert_eq!(worker.pull().await.unwrap_err().code(), Code::Aborted);
    (worker.term, worker.worker) = (term, number);
    worker.work().await.unwrap();
    served.outcome().await;
}

#[tokio::test]
async fn a_worker_of_another_kind_is_refused_with_both_values() {
    let dir = tempfile::tempdir().unwrap();
    let job = job(dir.path());
    let served = start(&job);
    let mut first = at_step_0(&served.address).await;
    let mut control = control(&served.address).await;
    let hello = v1::HelloRequest { protocol_version: 99, build: BUILD.into() };
    let status = control.hello(hello).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("99"), "{status}");
    let good = introduction(first.term, &job);
    assert_eq!(good.protocol_version, PROTOCOL_VERSION);
    for (join, ours) in [
        (v1::JoinRequest { numeric_kind: "other".into(), ..good.clone() }, "`fake`"),
        (v1::JoinRequest { dataset_fingerprint: "other".into(), ..good.clone() }, "`dataset`"),
        (v1::JoinRequest { build: "other".into(), ..good.clone() }, BUILD),
    ] {
        let status = control.join(join).await.unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert!(
            status.message().contains("`other`") && status.message().contains(ours),
            "{status}"
        );
    }
    let stale = v1::JoinRequest { term: first.term ^ 1, ..good };
    assert_eq!(control.join(stale).await.unwrap_err().code(), Code::Aborted);
    first.work().await.unwrap();
    served.outcome().await;
}

#[tokio::test]
async fn a_nan_ends_the_run_names_its_samples_and_leaves_a_replay_bundle() {
    let dir = tempfile::tempdir().unwrap();
    let served = start(&job(dir.path()));
    let mut worker = at_step_0(&served.address).await;
    let assignment = Assignment { step: GlobalStep(0), replica: ReplicaId(2) };
    let mut messages = worker.messages(assignment);
    let (mut gradient, ..) = worker.compute(assignment);
    let dense = worker.layout.params.get("dense.weight").unwrap().range.clone();
    gradient[dense.start + 3] = f32::NAN;
    messages[1] = PushMessage { message: Some(chunk(VectorKind::Gradient, 0, gradient)) };
    assert_eq!(worker.push_messages(messages).await.unwrap(), Outcome::Dropped);
    let directive = worker.pull().await.unwrap();
    assert!(matches!(&directive, Directive::Stop(stop) if stop.reason.contains("NaN")));
    let failure = served.failure().await;
    for part in
        ["step 0, replica 2", "worker 1 (fake)", "gradient of dense.weight is NaN at element 3"]
    {
        assert!(failure.contains(part), "{failure}");
    }
    let bundle = dir.path().join("replay/step-0-replica-2");
    let about = std::fs::read_to_string(bundle.join("contribution.json")).unwrap();
    let about: serde_json::Value = serde_json::from_str(&about).unwrap();
    assert_eq!(about["samples"].as_array().unwrap().len(), 4);
    assert!(hw2_common::checkpoint::newest_valid(&bundle).unwrap().is_some());
}

#[tokio::test]
async fn infinities_and_what_would_become_one_are_not_finite_either() {
    for (value, kind) in
        [(f32::INFINITY, VectorKind::BatchStatistics), (1e20, VectorKind::Gradient)]
    {
        let dir = tempfile::tempdir().unwrap();
        let mut job = job(dir.path());
        job.config.on_non_finite = hw2_common::config::NonFinite::Skip;
        job.config.max_steps = 2;
        let served = start(&job);
        let mut worker = at_step_0(&served.address).await;
        let assignment = Assignment { step: GlobalStep(0), replica: ReplicaId(0) };
        let mut messages = worker.messages(assignment);
        let (index, len) = match kind {
            VectorKind::Gradient => (1, worker.layout.params.len()),
            _ => (2, worker.layout.buffers.len()),
        };
        messages[index] = PushMessage { message: Some(chunk(kind, 0, vec![value; len])) };
        assert_eq!(worker.push_messages(messages).await.unwrap(), Outcome::Dropped);
        worker.work().await.unwrap();
        let outcome = served.outcome().await;
        assert_eq!((outcome.progress.skipped_steps, outcome.progress.updates()), (1, 1));
    }
}
