//! Checkpoints of several servers.

use super::*;
use crate::shard::Shard;
use crate::state::Vectors;

/// Writes `whole` as `count` shards do.
fn write_in_parts(dir: &Path, whole: &Checkpoint, count: usize) -> PathBuf {
    let len = whole.state.vectors.weights.len();
    let range = |Shard { index, count }| index * len / count..(index + 1) * len / count;
    let slice = |shard: Shard| {
        let of = |vector: &Flat| Arc::new(vector[range(shard)].to_vec());
        let Vectors { weights, moment1, moment2, ema, buffers } = &whole.state.vectors;
        let [weights, moment1, moment2, ema] = [weights, moment1, moment2, ema].map(of);
        let buffers = if shard.is_coordinator() { Arc::clone(buffers) } else { Arc::default() };
        Vectors { weights, moment1, moment2, ema, buffers }
    };
    let step = whole.state.progress.global_step;
    let parts: Vec<_> = Shard::all(count)
        .skip(1)
        .map(|shard| write_part(dir, step, shard, range(shard), &slice(shard)).unwrap())
        .collect();
    let mut first = whole.clone();
    first.state.vectors = slice(Shard { index: 0, count });
    first.write_with(dir, &parts).unwrap()
}

#[test]
fn a_checkpoint_in_parts_is_the_same_checkpoint() {
    let whole = checkpoint(300);
    for count in [1, 2, 3] {
        let dir = tempfile::tempdir().unwrap();
        let path = write_in_parts(dir.path(), &whole, count);
        assert_eq!(names(dir.path()).len(), count);
        assert_eq!(Checkpoint::read(&path).unwrap(), whole, "{count} parts");
        assert_eq!(newest_valid(dir.path()).unwrap().unwrap().digest(), whole.digest());
        let len = whole.state.vectors.weights.len();
        for range in [0..len, 1..len - 1, 0..1, len - 1..len, len / 3..len / 2] {
            let vectors = read_range(&path, range.clone()).unwrap();
            assert_eq!(*vectors.ema, whole.state.vectors.ema[range.clone()], "{range:?}");
            assert_eq!(*vectors.moment1, whole.state.vectors.moment1[range]);
            assert_eq!(vectors.buffers, whole.state.vectors.buffers);
        }
    }
}

#[test]
fn a_checkpoint_with_a_part_that_is_not_its_own_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let mut older = checkpoint(200);
    Arc::make_mut(&mut older.state.vectors.weights).reverse();
    write_in_parts(dir.path(), &older, 3);
    let path = write_in_parts(dir.path(), &checkpoint(300), 3);
    let part =
        |step: u32| dir.path().join(format!("checkpoint-00000{step}.part-1-of-3.safetensors"));
    let bytes = fs::read(part(300)).unwrap();
    let refused = |what: &str| {
        let error = Checkpoint::read(&path).unwrap_err();
        assert!(matches!(error, CheckpointError::Damaged { .. }), "{error}");
        let error = error.to_string();
        assert!(error.contains(what) && error.contains("part-1-of-3"), "{error}");
        assert_eq!(newest_valid(dir.path()).unwrap().unwrap(), older);
    };
    let mut flipped = bytes.clone();
    *flipped.last_mut().unwrap() ^= 1;
    fs::write(part(300), &flipped).unwrap();
    refused("its checksum should be");
    fs::write(part(300), &bytes[..bytes.len() - 4]).unwrap();
    refused("its checksum should be");
    fs::copy(part(200), part(300)).unwrap();
    refused("the checksum of its part");
    fs::remove_file(part(300)).unwrap();
    refused("is not beside it");
    // A server puts the folder in order.
    recover(dir.path()).unwrap();
    let name = |it: &str| format!("checkpoint-00000{it}");
    let left = [
        "200.part-1-of-3.safetensors",
        "200.part-2-of-3.safetensors",
        "200.safetensors",
        "300.part-2-of-3.safetensors.damaged",
        "300.safetensors.damaged",
    ];
    assert_eq!(names(dir.path()), left.map(name));
}

#[test]
fn parts_come_and_go_with_their_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    for step in [100, 200, 300] {
        write_in_parts(dir.path(), &checkpoint(step), 2);
    }
    let progress = checkpoint(300).state.progress;
    prune(dir.path(), &progress, 1).unwrap();
    let kept = names(dir.path());
    let steps = list(dir.path()).unwrap().len();
    assert_eq!(kept.len(), 2 * steps, "{kept:?}");
    // The first shard was killed before it wrote its own.
    fs::remove_file(path(dir.path(), 300)).unwrap();
    remove_orphans(dir.path()).unwrap();
    assert_eq!(names(dir.path()).len(), kept.len() - 2);
}

#[test]
fn parts_make_a_whole_and_lie_beside_their_checkpoint() {
    let part = |file: &str, start, end| {
        let (file, checksum) = (file.to_owned(), String::new());
        PartFile { file, start, end, checksum }
    };
    let check = |parts: &[PartFile]| header::check_parts(parts, 9);
    check(&[]).unwrap();
    check(&[part("a", 3, 6), part("b", 6, 9)]).unwrap();
    check(&[part("a", 3, 5), part("b", 6, 9)]).unwrap_err();
    check(&[part("a", 3, 7), part("b", 6, 9)]).unwrap_err();
    check(&[part("a", 3, 6)]).unwrap_err();
    check(&[part("a", 9, 9)]).unwrap_err();
    for elsewhere in ["../a", "/a", "b/a", "..", ""] {
        check(&[part(elsewhere, 3, 9)]).unwrap_err();
    }
}
