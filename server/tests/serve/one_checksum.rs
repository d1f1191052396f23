//! One job gives one checksum, whoever computes it and whatever happens.

use std::time::Duration;

use hw2_common::address::Address;
use hw2_common::ids::{Assignment, GlobalStep, ReplicaId};
use hw2_proto::v1::directive::Directive;
use hw2_proto::v1::push_reply::Outcome as Pushed;

use crate::fake::{digest, hire, job, run, start, start_on};
use crate::worker::Worker;

/// Time for what should be done in a moment.
const DEADLINE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn any_number_of_workers_gives_the_same_bits() {
    let mut digests = Vec::new();
    for count in [1, 2, 3, 5] {
        let dir = tempfile::tempdir().unwrap();
        let (outcome, digest) = run(&job(dir.path()), count).await;
        assert!(outcome.finished, "{}", outcome.reason);
        assert!(outcome.progress.halvings > 0, "{:?}", outcome.progress);
        digests.push(digest);
    }
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
}

#[tokio::test]
async fn another_seed_or_one_more_step_gives_other_bits() {
    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let jobs = dirs.each_ref().map(|dir| job(dir.path()));
    let [job, mut seed, mut steps] = jobs;
    seed.config.seed = 2;
    steps.config.max_steps += 1;
    let (_, digest) = run(&job, 1).await;
    assert_ne!(run(&seed, 1).await.1, digest);
    assert_ne!(run(&steps, 1).await.1, digest);
}

#[tokio::test]
async fn a_unix_socket_carries_the_same_bits() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let (_, expected) = run(&job(dirs[0].path()), 1).await;
    let path = dirs[1].path().join("ps.sock");
    let served = start_on(&job(dirs[1].path()), &Address::Unix(path.clone()));
    for worker in hire(&served.address, 2).await {
        worker.await.unwrap().unwrap();
    }
    assert_eq!(digest(&served.outcome().await), expected);
    assert!(!path.exists(), "the socket's file is removed");
}

#[tokio::test]
async fn a_narrow_push_window_gives_the_same_bits() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let (_, expected) = run(&job(dirs[0].path()), 1).await;
    let mut narrow = job(dirs[1].path());
    narrow.config.cluster.push_window = 1;
    assert_eq!(run(&narrow, 3).await.1, expected);
}

/// Whoever holds all leases, and is gone without a word: nobody waits for its silence.
#[tokio::test]
async fn a_worker_that_hangs_up_is_missed_at_once() {
    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let (_, expected) = run(&job(dirs[0].path()), 1).await;
    let socket = Address::Unix(dirs[2].path().join("ps.sock"));
    for (address, dir) in [("127.0.0.1:0".parse().unwrap(), &dirs[1]), (socket, &dirs[2])] {
        let mut job = job(&dir.path().join("run"));
        job.config.cluster.heartbeat_timeout_ms = 24 * 3_600_000;
        let served = start_on(&job, &address);
        let mut lost = Worker::join(&served.address).await.unwrap();
        loop {
            match lost.pull().await.unwrap() {
                Directive::Run(_) => break,
                other => assert!(lost.obey(other).await.unwrap()),
            }
        }
        drop(lost);
        let others = hire(&served.address, 2).await;
        let work = async {
            for other in others {
                other.await.unwrap().unwrap();
            }
        };
        tokio::time::timeout(DEADLINE, work).await.expect("somebody to do its work");
        assert_eq!(digest(&served.outcome().await), expected);
    }
}

/// A worker that goes silent while it holds a lease, and whose contribution comes later all the
/// same: twice, and by then another one has taken its place.
#[tokio::test]
async fn a_worker_lost_with_a_lease_changes_no_bit() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let (_, expected) = run(&job(dirs[0].path()), 1).await;
    let mut job = job(dirs[1].path());
    job.config.cluster.heartbeat_timeout_ms = 2_000;
    let served = start(&job);
    let mut lost = Worker::join(&served.address).await.unwrap();
    let run = loop {
        match lost.pull().await.unwrap() {
            Directive::Run(run) => break run,
            other => assert!(lost.obey(other).await.unwrap()),
        }
    };
    let step = GlobalStep(run.step);
    let replicas: Vec<_> = run.assignments.iter().map(|leased| leased.replica).collect();
    assert_eq!(replicas, [0, 1, 2]);
    let first = Assignment { step, replica: ReplicaId(0) };
    assert_eq!(lost.push(first).await.unwrap(), Pushed::Counted);
    assert_eq!(lost.push(first).await.unwrap(), Pushed::Duplicate);
    let status = lost.status().await;
    assert_eq!(status.workers[0].owed_replicas, [1, 2]);
    assert!(status.waiting_for.contains("replica 1 from worker 1 (fake)"), "{status:?}");

    let mut others = hire(&served.address, 2).await;
    others.remove(0).await.unwrap().unwrap();
    others.remove(0).await.unwrap().unwrap();
    assert_eq!(digest(&served.outcome().await), expected);
}
