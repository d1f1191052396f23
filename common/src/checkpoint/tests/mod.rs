use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use proptest::prelude::*;
use safetensors::{Dtype, SafeTensors};

mod file;
mod folder;
mod parts;

use super::*;
use crate::config::{Config, NonFinite};
use crate::ids::GlobalStep;
use crate::job::Card;
use crate::model::{Block, ConvSpec, ModelSpec};
use crate::state::{Evaluation, Flat};

fn config() -> Config {
    let layers = vec![ConvSpec { channels: 2, kernel_size: 3, stride: 2 }];
    let blocks = vec![
        Block::ConvStack { name: "conv_stack1".into(), layers },
        Block::Dense { name: "dense1".into(), units: 3, keep: 0.5, weight_decay: 1e-3 },
        Block::SoftmaxLinear { name: "softmax_linear".into() },
    ];
    Config { model: ModelSpec { image_size: 5, blocks }, ..Config::default() }
}

fn evaluation(step: u64, top1: u32) -> Evaluation {
    Evaluation { step: GlobalStep(step), samples: 9, top1, top5: 9, loss: 2.0 / 3.0 }
}

/// A run at `step`, no two of its values equal.
fn checkpoint(step: u64) -> Checkpoint {
    let dataset = Card {
        classes: vec!["Zürich \"HB\"".into(), "übung".into()],
        train: 20,
        val: 9,
        fingerprint: "0123".into(),
    };
    let job = Job { config: config(), dataset };
    let layout = job.layout().unwrap();
    let mut state = State::initial(&job.config, &layout);
    let vectors = &mut state.vectors;
    let all = [
        &mut vectors.weights,
        &mut vectors.moment1,
        &mut vectors.moment2,
        &mut vectors.ema,
        &mut vectors.buffers,
    ];
    let mut next = step as f32;
    for vector in all {
        for value in Arc::make_mut(vector) {
            next += 0.1;
            *value = next;
        }
    }
    state.progress.global_step = GlobalStep(step);
    state.progress.learning_rate = 1e-3 / 3.0;
    state.progress.plateau_top1 = Some(1.0 / 3.0);
    state.progress.last_evaluation = Some(evaluation(step, 3));
    Checkpoint::new(job, Some("abcd".into()), state)
}

fn folder_with(steps: &[u64]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for step in steps {
        checkpoint(*step).write(dir.path()).unwrap();
    }
    dir
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn path(dir: &Path, step: u64) -> PathBuf {
    dir.join(file_name(GlobalStep(step)))
}

fn step(found: &Option<Checkpoint>) -> Option<u64> {
    found.as_ref().map(|checkpoint| checkpoint.state.progress.global_step.0)
}

/// Cuts the last byte off.
fn tear(path: &Path) {
    let bytes = fs::read(path).unwrap();
    fs::write(path, &bytes[..bytes.len() - 1]).unwrap();
}

/// Writes a file with a right checksum in which `from` reads `to`, of the same length.
fn forge(dir: &Path, from: &str, to: &str) -> PathBuf {
    use sha2::{Digest, Sha256};
    assert_eq!(from.len(), to.len());
    let mut bytes = fs::read(checkpoint(300).write(dir).unwrap()).unwrap();
    let place = bytes.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
    bytes[place..place + to.len()].copy_from_slice(to.as_bytes());
    let digits = 8 + header::CHECKSUM.start..8 + header::CHECKSUM.end;
    bytes[digits.clone()].fill(b'0');
    let checksum = crate::hex(&Sha256::digest(&bytes));
    bytes[digits].copy_from_slice(checksum.as_bytes());
    fs::write(path(dir, 300), bytes).unwrap();
    path(dir, 300)
}
