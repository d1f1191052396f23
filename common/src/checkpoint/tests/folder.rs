//! A folder of checkpoints.

use super::*;

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
    forge(dir.path(), r#"{\"format\":2"#, r#"{\"format\":3"#);
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
    assert!(
        error.contains("holds no checkpoint (a file like checkpoint-00000300.safetensors)"),
        "{error}"
    );
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
