//! The commands a person types, on the tiny job: split, train, eval, predict, config.

use std::fs;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;

use crate::common::{
    CLASSES, Ended, Evaluation, Job, Process, TINY, hw2, hw2_command, is_gone, wait_for,
    write_image,
};

/// What `hw2 train --json` prints, as far as the tests read it.
#[derive(Debug, Deserialize)]
struct Summary {
    evaluations: Vec<Evaluation>,
    best: Evaluation,
    interrupted: bool,
}

/// What `hw2 eval --json` prints, as far as the tests read it.
#[derive(Debug, Deserialize)]
struct Evaluated {
    step: u64,
    samples: u32,
    precision: Vec<Precision>,
}

#[derive(Debug, Deserialize)]
struct Precision {
    k: u32,
    right: u32,
}

/// What `hw2 predict --json` prints for a file.
#[derive(Debug, Deserialize)]
struct Prediction {
    classes: Vec<Class>,
}

#[derive(Debug, Deserialize)]
struct Class {
    class: String,
    probability: f64,
}

/// Starts `hw2 train` for `job` into the folder `out`.
fn start_training(job: &Job, out: &str, flags: &[&str]) -> Process {
    let mut command = hw2_command(["train", "--workers", "2", "--json"]);
    command.arg("--config").arg(job.config()).arg("--data").arg(job.data());
    command.arg("--out").arg(job.dir().join(out)).args(flags);
    Process::start(&format!("{out}-train"), command, job.dir())
}

fn train(job: &Job, out: &str, flags: &[&str]) -> Ended {
    start_training(job, out, flags).end()
}

fn summary(ended: &Ended) -> Summary {
    let summary: Summary = serde_json::from_str(&ended.stdout).unwrap_or_else(|error| {
        panic!("{error}: {ended}");
    });
    assert_eq!(ended.code, Some(if summary.interrupted { 75 } else { 0 }), "{ended}");
    summary
}

/// Steps of a run that is long enough to be interrupted.
const LONG: [&str; 4] = ["--steps", "150", "--set", "stop_patience=1000"];

/// Starts a long run, and waits until it has a checkpoint of a step.
fn start_long_training(job: &Job, out: &str) -> Process {
    let training = start_training(job, out, &LONG);
    let checkpoint = job.dir().join(out).join("checkpoint-00000005.safetensors");
    wait_for("a checkpoint", || checkpoint.exists().then_some(()));
    training
}

#[test]
fn eval_gives_the_very_counts_that_training_reported() {
    let job = Job::new();
    let summary = summary(&train(&job, "run", &[]));
    assert!(!summary.interrupted);
    assert_eq!(summary.evaluations, job.run("run").evaluations());
    let last = summary.evaluations.last().unwrap();
    for (which, reported) in [("best", &summary.best), ("newest", last)] {
        let dir = job.dir().join("run").display().to_string();
        let ended = hw2(["eval", "--checkpoint-dir", &dir, "--checkpoint", which, "--json"]);
        assert_eq!(ended.code, Some(0), "{ended}");
        let found: Evaluated = serde_json::from_str(&ended.stdout).unwrap();
        assert_eq!((found.step, found.samples), (reported.step, reported.samples), "{which}");
        let counts: Vec<_> = found.precision.iter().map(|found| (found.k, found.right)).collect();
        assert_eq!(counts, [(1, reported.top1), (5, reported.top5)], "{which}");
    }
}

#[test]
fn predict_ranks_all_classes_and_names_a_file_that_is_no_image() {
    let job = Job::new();
    summary(&train(&job, "run", &["--steps", "5"]));
    let [dir, image, text] = ["run", "photo.png", "text.png"].map(|name| job.dir().join(name));
    write_image(&image, 0, 99);
    fs::write(&text, "no image").unwrap();
    let mut command = hw2_command(["predict", "--json", "--top-k", "5", "--checkpoint-dir"]);
    command.args([&dir, &text, &image]);
    let ended = Process::start("predict", command, job.dir()).end();
    assert_eq!(ended.code, Some(1), "one of two files is no image: {ended}");
    assert!(ended.stderr.contains("text.png"), "{ended}");
    let prediction: Prediction = serde_json::from_str(&ended.stdout).unwrap();
    let mut names: Vec<&str> =
        prediction.classes.iter().map(|found| found.class.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, CLASSES);
    assert!(prediction.classes.is_sorted_by(|a, b| a.probability >= b.probability), "{ended}");
    let sum: f64 = prediction.classes.iter().map(|found| found.probability).sum();
    assert!((sum - 1.0).abs() < 1e-6, "{ended}");
}

#[test]
fn a_used_folder_is_refused_and_resume_goes_on_to_the_same_bits() {
    let job = Job::new();
    summary(&train(&job, "run", &["--steps", "20"]));
    let before = job.run("run").digest();

    let refused = train(&job, "run", &["--steps", "30"]);
    assert_eq!(refused.code, Some(1), "{refused}");
    assert!(refused.stderr.contains("--resume"), "{refused}");
    let refused = train(&job, "run", &["--steps", "30", "--resume", "--seed", "7"]);
    assert_eq!(refused.code, Some(1), "{refused}");
    assert!(refused.stderr.contains("seed"), "{refused}");
    assert!(refused.stderr.contains('1') && refused.stderr.contains('7'), "{refused}");
    assert_eq!(job.run("run").digest(), before, "a refused command changes nothing");

    summary(&train(&job, "run", &["--steps", "30", "--resume"]));
    summary(&train(&job, "whole", &["--steps", "30"]));
    assert_eq!(job.run("run").digest(), job.run("whole").digest());
}

#[test]
fn the_number_of_workers_becomes_replicas_where_nothing_sets_them() {
    let job = Job::new();
    fs::write(job.config(), TINY.replace("replicas = 3\n", "")).unwrap();
    let ended = train(&job, "run", &["--steps", "5"]);
    summary(&ended);
    assert!(ended.stderr.contains("replicas = 2"), "{ended}");
    let config = fs::read_to_string(job.dir().join("run/config.toml")).unwrap();
    assert!(config.contains("replicas = 2\n"), "{config}");
}

#[test]
fn ctrl_c_ends_every_child_with_a_checkpoint_from_which_the_run_goes_on() {
    let job = Job::new();
    let training = start_long_training(&job, "run");
    let children = training.children();
    assert_eq!(children.len(), 3, "a server and two workers");
    training.signal(Signal::SIGINT);
    let ended = training.end();
    assert!(summary(&ended).interrupted, "{ended}");
    let left: Vec<_> = children.into_iter().filter(|child| !is_gone(child)).collect();
    assert!(left.is_empty(), "still there: {left:?}");
    let (_, step) = job.run("run").digest();
    assert!((5..150).contains(&step), "step {step}");

    let resumed = summary(&train(&job, "run", &["--resume", LONG[0], LONG[1], LONG[2], LONG[3]]));
    assert!(!resumed.interrupted);
    summary(&train(&job, "whole", &LONG));
    assert_eq!(job.run("run").digest(), job.run("whole").digest());
}

#[test]
fn a_run_whose_server_somebody_else_stops_is_not_done() {
    let job = Job::new();
    let training = start_long_training(&job, "run");
    let is_server = |child: &Pid| {
        let line = fs::read(format!("/proc/{child}/cmdline")).unwrap();
        line.split(|byte| *byte == 0).any(|word| word == b"server")
    };
    kill(training.children().into_iter().find(is_server).unwrap(), Signal::SIGTERM).unwrap();
    let ended = training.end();
    assert!(summary(&ended).interrupted, "{ended}");
    let (_, step) = job.run("run").digest();
    assert!((5..150).contains(&step), "step {step}");
}

#[test]
fn when_the_front_door_is_killed_its_children_end_with_a_checkpoint() {
    let job = Job::new();
    let training = start_long_training(&job, "run");
    let children = training.children();
    training.signal(Signal::SIGKILL);
    assert_eq!(training.end().signal, Some(Signal::SIGKILL as i32));
    wait_for("the children to end", || children.iter().all(is_gone).then_some(()));
    let (_, step) = job.run("run").digest();
    assert!((5..150).contains(&step), "step {step}");
}

#[test]
fn photos_are_split_and_trained_on_and_stay_where_they_are() {
    let job = Job::new();
    let photos = job.dir().join("photos");
    for (class, name) in CLASSES.iter().enumerate() {
        fs::create_dir_all(photos.join(name)).unwrap();
        for number in 0..10 {
            write_image(&photos.join(name).join(format!("{number}.png")), class, number);
        }
    }
    let before = files(&photos);
    let data = job.dir().join("split");
    let ended = hw2(["split".as_ref(), photos.as_os_str(), data.as_os_str()]);
    assert_eq!(ended.code, Some(0), "{ended}");
    assert_eq!(files(&photos), before);
    assert_eq!(files(&data.join("train")).len(), 5 * 8, "{ended}");
    assert_eq!(files(&data.join("val")).len(), 5 * 2, "{ended}");
    let steps = ["--steps", "5", "--data", data.to_str().unwrap()];
    let mut command = hw2_command(["train", "--workers", "1", "--json", "--out"]);
    command.arg(job.dir().join("run")).arg("--config").arg(job.config()).args(steps);
    let summary = summary(&Process::start("train", command, job.dir()).end());
    assert_eq!(summary.best.samples, 10);
}

/// Its workers need not work in the server's folder.
#[test]
fn a_server_whose_dataset_is_named_by_a_relative_path() {
    let job = Job::new();
    let address = format!("unix:{}", job.dir().join("run.sock").display());
    let mut command = hw2_command(["server", "--listen", &address, "--data", "data"]);
    command.args(["--run-dir", "run", "--set", "max_steps=2", "--config"]).arg(job.config());
    command.current_dir(job.dir());
    let server = Process::start("server", command, job.dir());
    let worker = hw2_command(["worker", "--device", "cpu", "--threads", "1", "--ps", &address]);
    Process::start("worker", worker, job.dir()).succeed();
    server.succeed();
}

/// Every file below `dir` with its content.
fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for class in fs::read_dir(dir).unwrap() {
        for file in fs::read_dir(class.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            found.push((path.display().to_string(), fs::read(&path).unwrap()));
        }
    }
    found.sort();
    found
}

#[test]
fn config_says_where_each_value_came_from() {
    let job = Job::new();
    let mut command = hw2_command(["config", "--seed", "9", "--config"]);
    command.arg(job.config()).env("HW2_MAX_STEPS", "77");
    let ended = Process::start("config", command, job.dir()).end();
    assert_eq!(ended.code, Some(0), "{ended}");
    let row = |key: &str| {
        let row = ended.stdout.lines().find(|line| line.split_whitespace().next() == Some(key));
        row.unwrap_or_else(|| panic!("no row for {key}: {ended}")).to_owned()
    };
    for (key, source, value) in [
        ("seed", "--seed", "9"),
        ("max_steps", "HW2_MAX_STEPS", "77"),
        ("batch_size", "job.toml:5", "16"),
        ("optimizer.beta1", "default", "0.9"),
    ] {
        assert!(row(key).contains(source) && row(key).ends_with(value), "{}", row(key));
    }
}
