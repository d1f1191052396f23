//! The coordinator under schedules of deaths and delays, without a network.

use hw2_common::config::Config;
use hw2_common::job::{Card, Job};

/// A small job: 3 replicas of 4 images, 5 blocks, evaluation every 4 steps.
pub(super) fn job() -> Job {
    let config = Config {
        replicas: 3,
        batch_size: 4,
        checkpoint_every: 4,
        max_steps: 10,
        ..Config::default()
    };
    let dataset = Card {
        classes: vec!["a".into(), "b".into()],
        train: 30,
        val: 18,
        fingerprint: "dataset".into(),
    };
    Job { config, dataset }
}
