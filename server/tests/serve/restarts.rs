//! A server that ends, in good order or not, and one that goes on.

use std::fs;
use std::path::Path;

use hw2_common::checkpoint;
use hw2_server::curve::{self, Line};

use crate::fake::{digest, hire, job, run, start};
use crate::worker::Worker;

#[tokio::test]
async fn a_run_that_was_drained_goes_on_to_the_same_bits() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let (_, expected) = run(&job(dirs[0].path()), 1).await;
    let job = job(dirs[1].path());

    let served = start(&job);
    let mut worker = Worker::join(&served.address).await.unwrap();
    while worker.weights.0 != Some(4) {
        let directive = worker.pull().await.unwrap();
        assert!(worker.obey(directive).await.unwrap());
    }
    served.shutdown.cancel();
    worker.work().await.unwrap();
    let outcome = served.outcome().await;
    assert!(!outcome.finished && outcome.reason.contains("asked to stop"), "{outcome:?}");
    assert_eq!(outcome.progress.global_step.0, 5);

    let served = start(&job);
    for worker in hire(&served.address, 2).await {
        worker.await.unwrap().unwrap();
    }
    let outcome = served.outcome().await;
    assert!(outcome.finished);
    assert_eq!(digest(&outcome), expected);
    assert_eq!(curve_steps(dirs[1].path()), curve_steps(dirs[0].path()));
}

/// What is on the disk at some moment is what a killed server leaves.
#[tokio::test]
async fn a_server_killed_at_any_moment_is_replayed_to_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    let served = start(&job(dir.path()));
    let mut worker = Worker::join(&served.address).await.unwrap();
    let mut remains = Vec::new();
    loop {
        let directive = worker.pull().await.unwrap();
        let killed = tempfile::tempdir().unwrap();
        copy(dir.path(), killed.path());
        remains.push(killed);
        if !worker.obey(directive).await.unwrap() {
            break;
        }
    }
    let outcome = served.outcome().await;
    let expected = digest(&outcome);
    assert!(remains.len() > 12);

    let mut replayed = 0;
    for killed in &remains {
        let job = job(killed.path());
        let served = start(&job);
        let mut worker = Worker::join(&served.address).await;
        if let Ok(worker) = &mut worker {
            worker.work().await.unwrap();
            replayed += worker.status().await.replayed_steps;
            worker.leave().await;
        }
        assert_eq!(digest(&served.outcome().await), expected);
        assert_eq!(curve_steps(killed.path()), curve_steps(dir.path()));
    }
    assert!(replayed > 0, "some of them had committed steps after their checkpoint");
}

#[tokio::test]
async fn a_damaged_checkpoint_is_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let job = job(dir.path());
    let (outcome, expected) = run(&job, 1).await;
    let bytes = fs::read(outcome.last_checkpoint.as_ref().unwrap()).unwrap();
    fs::write(outcome.last_checkpoint.as_ref().unwrap(), &bytes[..bytes.len() - 7]).unwrap();
    assert_eq!(run(&job, 1).await.1, expected);
}

#[tokio::test]
async fn a_finished_run_ends_again_at_once_and_goes_on_with_more_steps() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let mut short = job(dirs[0].path());
    let mut whole = job(dirs[1].path());
    whole.config.max_steps = 19;
    let (_, expected) = run(&whole, 1).await;

    let (first, _) = run(&short, 1).await;
    let again = start(&short).outcome().await;
    assert_eq!(again, first, "nobody has to come for that");
    short.config.max_steps = 19;
    assert_eq!(run(&short, 2).await.1, expected);
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let name = entry.unwrap().file_name();
        // A file that is being written or pruned may be gone by now.
        let _ = fs::copy(from.join(&name), to.join(&name));
    }
}

/// The steps of a curve's lines, evaluations marked.
fn curve_steps(dir: &Path) -> Vec<(u64, bool)> {
    let line = |line: &Line| (line.step().0, matches!(line, Line::Evaluation { .. }));
    let lines = curve::read(dir).unwrap();
    assert!(!checkpoint::list(dir).unwrap().is_empty());
    lines.iter().map(line).collect()
}
