//! One checkpoint file.

use super::*;

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

#[test]
fn what_another_program_wrote_is_refused_with_what_is_not_understood() {
    let dir = tempfile::tempdir().unwrap();
    let error = |from: &str, to: &str| {
        let error = Checkpoint::read(&forge(dir.path(), from, to)).unwrap_err();
        assert!(matches!(error, CheckpointError::Unsupported { .. }), "{error}");
        error.to_string()
    };
    let format = error(r#"{\"format\":2"#, r#"{\"format\":3"#);
    assert!(format.contains("its format is 3, this program's is 2"), "{format}");
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
