use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use proptest::prelude::*;
use safetensors::{Dtype, SafeTensors};

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

#[test]
fn what_is_read_is_what_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let mut written = checkpoint(300);
    let odd = [f32::MIN_POSITIVE / 3.0, -0.0, f32::MAX, f32::from_bits(1), 0.1];
    Arc::make_mut(&mut written.state.vectors.moment2)[..5].copy_from_slice(&odd);
    written.job.config.images.contrast_min = 0.1 + 0.2;
    written.job.config.optimizer.learning_rate = f64::MIN_POSITIVE / 3.0;
    written.job.config.seed = i64::MAX as u64;
    written.job.config.on_non_finite = NonFinite::Skip;
    let path = written.write(dir.path()).unwrap();
    assert_eq!(names(dir.path()), ["checkpoint-00000300.safetensors"]);
    let read = Checkpoint::read(&path).unwrap();
    assert_eq!(read, written);
    let bits = |flat: &Flat| flat.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&read.state.vectors.moment2), bits(&written.state.vectors.moment2));
    assert_eq!(read.digest(), written.digest());
}

#[test]
fn a_vector_longer_than_a_chunk_survives() {
    let mut written = checkpoint(1);
    if let Block::Dense { units, .. } = &mut written.job.config.model.blocks[1] {
        *units = 3001;
    }
    written.state = State::initial(&written.job.config, &written.layout());
    assert!(written.state.vectors.weights.len() > 2 * 16384);
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(Checkpoint::read(&written.write(dir.path()).unwrap()).unwrap(), written);
}

#[test]
fn other_tools_read_the_tensors_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let written = checkpoint(300);
    let bytes = fs::read(written.write(dir.path()).unwrap()).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let layout = written.layout();
    assert_eq!(file.len(), 4 * layout.params.entries().len() + layout.buffers.entries().len());
    let ema = file.tensor("ema.dense1.weight").unwrap();
    let entry = layout.params.get("dense1.weight").unwrap();
    assert_eq!((ema.dtype(), ema.shape()), (Dtype::F32, &entry.shape[..]));
    let values: Vec<u8> = written.state.vectors.ema[entry.range.clone()]
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    assert_eq!(ema.data(), values);
    assert_eq!(ema.data().as_ptr() as usize % 4, bytes.as_ptr() as usize % 4);
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let about = &header.metadata().as_ref().unwrap()["hw2"];
    let about: serde_json::Value = serde_json::from_str(about).unwrap();
    assert_eq!(about["dataset"]["classes"][1], "übung");
    assert_eq!(about["config"]["seed"], 1);
    assert_eq!(about["progress"]["global_step"], 300);
    assert!(about["preprocessing"].as_str().unwrap().contains("central 260x260"));
}

#[test]
fn the_same_state_makes_the_same_bytes() {
    let (a, b) = (folder_with(&[300]), folder_with(&[300]));
    assert_eq!(fs::read(path(a.path(), 300)).unwrap(), fs::read(path(b.path(), 300)).unwrap());
}

#[test]
fn a_refused_write_leaves_nothing_and_keeps_what_was_there() {
    let missing = tempfile::tempdir().unwrap().path().join("gone");
    let error = checkpoint(300).write(&missing).unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("cannot create a file in {}", missing.display())),
        "{error}"
    );
    let dir = tempfile::tempdir().unwrap();
    // A folder under the final name: the rename fails after all bytes are written.
    fs::create_dir(path(dir.path(), 300)).unwrap();
    checkpoint(300).write(dir.path()).unwrap_err();
    assert_eq!(names(dir.path()), ["checkpoint-00000300.safetensors"]);
}

#[test]
fn every_truncation_is_an_error_that_names_the_file() {
    let dir = folder_with(&[300]);
    let whole = fs::read(path(dir.path(), 300)).unwrap();
    let torn = dir.path().join("torn");
    for bytes in (0..whole.len()).step_by(97).chain([1, 7, 8, 9, 50, 101, whole.len() - 1]) {
        fs::write(&torn, &whole[..bytes]).unwrap();
        let error = Checkpoint::read(&torn).unwrap_err();
        assert!(matches!(error, CheckpointError::Damaged { .. }), "{bytes} bytes: {error}");
        assert!(error.to_string().contains(&torn.display().to_string()), "{error}");
    }
    fs::write(&torn, [&whole[..], &[0]].concat()).unwrap();
    assert!(matches!(Checkpoint::read(&torn), Err(CheckpointError::Damaged { .. })));
}

/// Whether the whole file of step 300 is refused as damaged with one bit flipped.
fn refused_with_flipped(byte: usize, bit: u8) -> bool {
    let mut bytes = WHOLE.clone();
    bytes[byte] ^= 1 << bit;
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), &bytes).unwrap();
    matches!(Checkpoint::read(file.path()), Err(CheckpointError::Damaged { .. }))
}

static WHOLE: LazyLock<Vec<u8>> =
    LazyLock::new(|| fs::read(path(folder_with(&[300]).path(), 300)).unwrap());

#[test]
fn every_flipped_bit_of_length_and_checksum_is_an_error() {
    for byte in 0..8 + header::CHECKSUM.end {
        for bit in 0..8 {
            assert!(refused_with_flipped(byte, bit), "byte {byte}, bit {bit}");
        }
    }
}

proptest! {
    #[test]
    fn every_flipped_bit_is_an_error(place in any::<prop::sample::Index>(), bit in 0..8_u8) {
        prop_assert!(refused_with_flipped(place.index(WHOLE.len()), bit));
    }
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

#[test]
fn what_another_program_wrote_is_refused_with_what_is_not_understood() {
    let dir = tempfile::tempdir().unwrap();
    let error = |from: &str, to: &str| {
        let error = Checkpoint::read(&forge(dir.path(), from, to)).unwrap_err();
        assert!(matches!(error, CheckpointError::Unsupported { .. }), "{error}");
        error.to_string()
    };
    let format = error(r#"{\"format\":1"#, r#"{\"format\":2"#);
    assert!(format.contains("its format is 2, this program's is 1"), "{format}");
    let key = error("short_side", "shirt_side");
    assert!(key.contains("unknown field `shirt_side`"), "{key}");
    let layout = error(r#"units\":3"#, r#"units\":4"#);
    assert!(layout.contains("its layout has fingerprint"), "{layout}");
    let tensor =
        error(r#""ema.dense1.weight":{"dtype":"F32""#, r#""ema.dense1.weight":{"dtype":"I32""#);
    assert!(tensor.contains("tensor `ema.dense1.weight`"), "{tensor}");
    let skipped = error(
        r#"\"global_step\":300,\"skipped_steps\":0"#,
        r#"\"global_step\":3  ,\"skipped_steps\":4"#,
    );
    assert!(skipped.contains("it skipped 4 of 3 steps"), "{skipped}");
}

#[test]
fn another_job_is_refused_with_every_difference() {
    let mine = checkpoint(300);
    let mut job = mine.job.clone();
    job.config.run_dir = "elsewhere".into();
    job.config.max_steps = 1;
    mine.check_job(&job).unwrap();
    job.config.seed = 2;
    job.dataset.classes.pop();
    let error = mine.check_job(&job).unwrap_err().to_string();
    assert_eq!(
        error,
        "the checkpoint of step 300 belongs to another run (here: the checkpoint, there: the job): \
         seed is 1 here and 2 there; dataset classes is Zürich \"HB\", übung here and Zürich \
         \"HB\" there; give the run its own config and data, or the new job a run folder of its own"
    );
}

#[test]
fn whatever_decides_the_future_changes_the_digest_and_nothing_else_does() {
    let original = checkpoint(300);
    let of = |change: &dyn Fn(&mut Checkpoint)| {
        let mut other = original.clone();
        change(&mut other);
        other.digest()
    };
    let same = original.digest();
    assert_eq!(of(&|c| c.job.config.threads = 3), same);
    assert_eq!(of(&|c| c.job.config.data = "elsewhere".into()), same);
    assert_eq!(of(&|c| c.job.config.max_steps = 1), same);
    assert_eq!(of(&|c| c.numeric_kind = None), same);
    assert_eq!(of(&|c| c.build = "hw2 9".into()), same);
    let changed = [
        of(&|_| ()),
        of(&|c| c.job.config.seed = 2),
        of(&|c| c.job.dataset.fingerprint = "0124".into()),
        of(&|c| c.state.progress.global_step.0 += 1),
        of(&|c| c.state.progress.skipped_steps += 1),
        of(&|c| c.state.progress.learning_rate /= 2.0),
        of(&|c| c.state.progress.halvings += 1),
        of(&|c| c.state.progress.stale_evaluations += 1),
        of(&|c| c.state.progress.plateau_top1 = None),
        of(&|c| c.state.progress.last_evaluation = Some(evaluation(300, 4))),
        of(&|c| c.state.progress.best_evaluation = Some(evaluation(300, 3))),
        of(&|c| Arc::make_mut(&mut c.state.vectors.weights)[0] = -0.0),
        of(&|c| Arc::make_mut(&mut c.state.vectors.weights)[0] = 0.0),
        of(&|c| std::mem::swap(&mut c.state.vectors.moment1, &mut c.state.vectors.moment2)),
        of(&|c| Arc::make_mut(&mut c.state.vectors.ema)[7] += 1.0),
        of(&|c| Arc::make_mut(&mut c.state.vectors.buffers)[1] += 1.0),
    ];
    let distinct: std::collections::BTreeSet<&String> = changed.iter().collect();
    assert_eq!(distinct.len(), changed.len());
}

#[test]
fn a_list_is_in_order_and_holds_nothing_else() {
    let dir = folder_with(&[900, 0, 300]);
    for other in [
        "checkpoint-300.safetensors",
        "checkpoint-00000300.safetensors.damaged",
        ".checkpoint-00000600.safetensors.x.partial",
        "checkpoint-+0000300.safetensors",
        "curve.csv",
    ] {
        fs::write(dir.path().join(other), "").unwrap();
    }
    let steps: Vec<u64> = list(dir.path()).unwrap().iter().map(|(step, _)| step.0).collect();
    assert_eq!(steps, [0, 300, 900]);
    let long = checkpoint(123_456_789).write(dir.path()).unwrap();
    assert_eq!(list(dir.path()).unwrap().last().unwrap().1, long);
}

#[test]
fn the_newest_whole_checkpoint_is_taken() {
    let dir = folder_with(&[]);
    assert_eq!(newest_valid(dir.path()).unwrap(), None);
    let dir = folder_with(&[0, 300, 600]);
    assert_eq!(step(&newest_valid(dir.path()).unwrap()), Some(600));
    tear(&path(dir.path(), 600));
    assert_eq!(step(&newest_valid(dir.path()).unwrap()), Some(300));
    fs::write(path(dir.path(), 300), "").unwrap();
    assert_eq!(step(&newest_valid(dir.path()).unwrap()), Some(0));
    tear(&path(dir.path(), 0));
    let error = newest_valid(dir.path()).unwrap_err();
    assert!(matches!(error, CheckpointError::AllDamaged { count: 3, .. }), "{error}");
    assert!(error.to_string().contains("checkpoint-00000600"), "{error}");
    assert_eq!(names(dir.path()).len(), 3);
}

#[test]
fn a_checkpoint_of_another_version_is_never_passed_over() {
    let dir = folder_with(&[0]);
    forge(dir.path(), r#"{\"format\":1"#, r#"{\"format\":2"#);
    let error = newest_valid(dir.path()).unwrap_err();
    assert!(matches!(error, CheckpointError::Unsupported { .. }), "{error}");
}

#[test]
fn recovery_sets_damaged_later_files_aside_and_clears_what_is_half_written() {
    let dir = folder_with(&[0, 300, 600, 900]);
    tear(&path(dir.path(), 600));
    tear(&path(dir.path(), 900));
    fs::write(dir.path().join(".checkpoint-00001200.safetensors.ab12.partial"), "half").unwrap();
    fs::write(dir.path().join("curve.csv"), "kept").unwrap();
    assert_eq!(step(&recover(dir.path()).unwrap()), Some(300));
    let after = [
        "checkpoint-00000000.safetensors",
        "checkpoint-00000300.safetensors",
        "checkpoint-00000600.safetensors.damaged",
        "checkpoint-00000900.safetensors.damaged",
        "curve.csv",
    ];
    assert_eq!(names(dir.path()), after);
    assert_eq!(step(&recover(dir.path()).unwrap()), Some(300));
    assert_eq!(names(dir.path()), after);
    tear(&path(dir.path(), 0));
    tear(&path(dir.path(), 300));
    recover(dir.path()).unwrap_err();
    assert_eq!(names(dir.path()), after, "nothing is changed when nothing is whole");
}

#[test]
fn the_best_is_found_by_file_and_by_folder() {
    let dir = folder_with(&[0, 300]);
    let mut newest = checkpoint(600);
    newest.state.progress.best_evaluation = Some(evaluation(300, 5));
    let newest_path = newest.write(dir.path()).unwrap();
    let found = |which| find(dir.path(), which).unwrap().state.progress.global_step.0;
    assert_eq!((found(Which::Best), found(Which::Newest)), (300, 600));
    assert_eq!(find(&newest_path, Which::Best).unwrap(), newest);
    tear(&path(dir.path(), 300));
    assert_eq!(found(Which::Best), 600, "the newest stands in");
    fs::remove_file(path(dir.path(), 300)).unwrap();
    assert_eq!(found(Which::Best), 600, "the newest stands in");
    fs::remove_file(newest_path).unwrap();
    assert_eq!(found(Which::Best), 0, "nothing was evaluated by then");
}

#[test]
fn an_extra_evaluation_at_the_last_step_can_be_the_best() {
    let dir = folder_with(&[300]);
    let mut newest = checkpoint(450);
    newest.state.progress.best_evaluation = Some(evaluation(300, 5));
    for (top1, best) in [(5, 300), (6, 450)] {
        newest.state.progress.last_evaluation = Some(evaluation(450, top1));
        newest.write(dir.path()).unwrap();
        let found = find(dir.path(), Which::Best).unwrap();
        assert_eq!(found.state.progress.global_step.0, best);
    }
}

#[test]
fn no_checkpoint_is_an_error_that_says_what_to_name() {
    let dir = tempfile::tempdir().unwrap();
    let error = find(dir.path(), Which::Best).unwrap_err().to_string();
    assert!(error.contains("holds no checkpoint (checkpoint-00000300.safetensors)"), "{error}");
    let error = find(&dir.path().join("gone"), Which::Best).unwrap_err().to_string();
    assert!(error.starts_with("cannot open ") && error.contains("gone"), "{error}");
}

#[test]
fn pruning_keeps_the_best_and_the_newest() {
    let dir = folder_with(&[0, 300, 600, 900, 1200]);
    let mut progress = checkpoint(1200).state.progress;
    let steps = || list(dir.path()).unwrap().iter().map(|(step, _)| step.0).collect::<Vec<_>>();
    progress.best_evaluation = Some(evaluation(300, 5));
    prune(dir.path(), &progress, 5).unwrap();
    assert_eq!(steps(), [0, 300, 600, 900, 1200]);
    prune(dir.path(), &progress, 3).unwrap();
    assert_eq!(steps(), [300, 600, 900, 1200]);
    prune(dir.path(), &progress, 2).unwrap();
    assert_eq!(steps(), [300, 900, 1200]);
    progress.best_evaluation = Some(evaluation(1200, 6));
    prune(dir.path(), &progress, 2).unwrap();
    assert_eq!(steps(), [900, 1200]);
}
