//! Whose folder it is, and what happens when it fails.

use std::fs;

use hw2_common::checkpoint;
use hw2_common::config::Layers;
use hw2_proto::v1::directive::Directive;

use crate::fake::{job, run, start};
use crate::worker::Worker;

#[tokio::test]
async fn a_changed_run_key_is_refused_with_both_values() {
    let dir = tempfile::tempdir().unwrap();
    let mut job = job(dir.path());
    run(&job, 1).await;
    let before = fs::read(dir.path().join("curve.jsonl")).unwrap();
    job.config.seed = 77;
    job.config.optimizer.beta1 = 0.5;
    let failure = start(&job).failure().await;
    for part in ["seed is 1 here and 77 there", "optimizer.beta1 is 0.9 here and 0.5 there"] {
        assert!(failure.contains(part), "{failure}");
    }
    assert_eq!(fs::read(dir.path().join("curve.jsonl")).unwrap(), before);
}

#[tokio::test]
async fn the_folder_holds_the_config_of_its_run() {
    let dir = tempfile::tempdir().unwrap();
    let mut job = job(dir.path());
    run(&job, 1).await;
    job.config.stop_patience = 99;
    start(&job).outcome().await;
    let file = Some(dir.path().join("config.toml"));
    let read = Layers { file, ..Layers::default() }.load().unwrap();
    assert_eq!(read.config, job.config);
}

#[tokio::test]
async fn two_servers_never_share_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    let job = job(dir.path());
    let first = start(&job);
    let mut worker = Worker::join(&first.address).await.unwrap();
    let failure = start(&job).failure().await;
    let name = dir.path().display().to_string();
    assert!(failure.contains(&name) && failure.contains("another server"), "{failure}");
    worker.work().await.unwrap();
    first.outcome().await;
}

#[tokio::test]
async fn old_checkpoints_are_removed_but_not_the_best() {
    let dir = tempfile::tempdir().unwrap();
    let mut job = job(dir.path());
    job.config.checkpoint_every = 1;
    job.config.cluster.keep_checkpoints = 2;
    let (outcome, _) = run(&job, 1).await;
    let steps: Vec<_> = checkpoint::list(dir.path()).unwrap().iter().map(|(s, _)| s.0).collect();
    let best = outcome.progress.best_evaluation.unwrap().step.0;
    let mut expected = vec![best, 9, 10];
    expected.dedup();
    assert_eq!(steps, expected);
}

#[tokio::test]
async fn a_folder_that_is_gone_is_an_error_at_the_end_and_training_goes_on_until_then() {
    let dir = tempfile::tempdir().unwrap();
    let run_dir = dir.path().join("run");
    let served = start(&job(&run_dir));
    let mut worker = Worker::join(&served.address).await.unwrap();
    while worker.status().await.last_checkpoint.is_empty() {
        match worker.pull().await.unwrap() {
            Directive::Run(_) => {} // not before the folder is gone
            other => assert!(worker.obey(other).await.unwrap()),
        }
    }
    fs::rename(&run_dir, dir.path().join("elsewhere")).unwrap();
    worker.work().await.unwrap();
    let failure = served.failure().await;
    assert!(failure.contains("max_steps = 10") && failure.contains("not saved"), "{failure}");
}
