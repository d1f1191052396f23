//! Bad input, each kind with its decision: an error that names the thing, its value and what to do,
//! a bad exit code, and nothing half-written; or, for one bad image among many, a replacement.

use std::ffi::OsStr;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use crate::common::{Ended, Job, hw2};

/// Exit code of a failure.
const FAILURE: i32 = 1;
/// Exit code of a command line or config that means nothing.
const USAGE: i32 = 2;

/// Fails unless `ended` is an error of exit code `code` whose message has all of `parts`.
fn refused(ended: &Ended, code: i32, parts: &[&str]) {
    assert_eq!(ended.code, Some(code), "{ended}");
    for part in parts {
        assert!(ended.stderr.contains(part), "`{part}` is missing: {ended}");
    }
    assert!(ended.stdout.is_empty(), "an error is no result: {ended}");
}

/// Starts a server for `job` with `flags`, which must be refused before it makes its run folder or
/// its socket.
fn server_refused(job: &Job, flags: &[&str], code: i32, parts: &[&str]) {
    let run = job.run("refused");
    let usual = [
        ("--listen", run.address()),
        ("--config", job.config().display().to_string()),
        ("--data", job.data().display().to_string()),
        ("--run-dir", run.dir().display().to_string()),
    ];
    let mut arguments = vec!["server".to_owned()];
    for (flag, value) in usual.into_iter().filter(|(flag, _)| !flags.contains(flag)) {
        arguments.extend([flag.to_owned(), value]);
    }
    arguments.extend(flags.iter().map(|flag| (*flag).to_owned()));
    refused(&hw2(arguments), code, parts);
    assert!(!run.dir().exists(), "nothing is left of a run that did not begin");
    assert!(!job.dir().join("refused.sock").exists(), "nor a socket");
}

/// A job with a run of five steps in the folder `run`.
fn trained() -> Job {
    let job = Job::new().set("max_steps", 5);
    let run = job.run("run");
    let (server, worker) = (run.server(), run.worker(0, 1));
    server.succeed();
    worker.succeed();
    job
}

fn newest_checkpoint(job: &Job) -> PathBuf {
    job.run("run").dir().join("checkpoint-00000005.safetensors")
}

#[test]
fn a_value_of_a_key() {
    let job = Job::new();
    for (setting, code, parts) in [
        ("batch_size=many", USAGE, ["batch_size = \"many\"", "an integer"]),
        ("batch_size=0", USAGE, ["batch_size = 0", "from 1"]),
        ("optimizer.learning_rate=-1", USAGE, ["optimizer.learning_rate = -1.0", "above 0"]),
        ("bach_size=3", USAGE, ["unknown key `bach_size`", "did you mean `batch_size`"]),
        ("images.crop_min=30", USAGE, ["images.crop_min = 30", "images.crop_max = 20"]),
        ("replicas=61", FAILURE, ["replicas = 61 is more than the 60 training images", "lower"]),
    ] {
        server_refused(&job, &["--set", setting], code, &parts);
    }
}

#[test]
fn a_config_file() {
    let job = Job::new();
    let file = job.config().display().to_string();
    for (text, parts) in [
        ("seed = = 3\n", ["job.toml", "line 1, column 8"]),
        ("batch_size = \"many\"\n", ["job.toml:1", "batch_size = \"many\""]),
        ("\n[optimiser]\nbeta1 = 0.5\n", ["job.toml:2", "did you mean `optimizer`"]),
        ("[images]\ncrop_min = 30\ncrop_max = 20\n", ["job.toml:2", "images.crop_min = 30"]),
    ] {
        fs::write(job.config(), text).unwrap();
        server_refused(&job, &[], USAGE, &parts);
    }
    fs::remove_file(job.config()).unwrap();
    server_refused(&job, &[], USAGE, &["cannot read", &file]);
}

#[test]
fn a_dataset() {
    let job = Job::new();
    let data = job.data();
    let nowhere = job.dir().join("nowhere").display().to_string();
    server_refused(&job, &["--data", &nowhere], FAILURE, &[&nowhere, "no such file", "--data"]);

    fs::rename(data.join("val/rows"), data.join("val/lines")).unwrap();
    let parts = ["only in train/: [\"rows\"]", "only in val/: [\"lines\"]"];
    server_refused(&job, &[], FAILURE, &parts);
    fs::rename(data.join("val/lines"), data.join("val/rows")).unwrap();

    fs::rename(data.join("val/rows"), job.dir().join("rows")).unwrap();
    fs::create_dir(data.join("val/rows")).unwrap();
    server_refused(&job, &[], FAILURE, &["val/rows", "add images"]);

    fs::rename(data.join("val"), data.join("test")).unwrap();
    server_refused(&job, &[], FAILURE, &["no val/", "hw2 split"]);
}

#[test]
fn an_address() {
    let job = Job::new();
    server_refused(&job, &["--listen", "nonsense"], FAILURE, &["`nonsense`", "host:port"]);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    server_refused(&job, &["--listen", &address], FAILURE, &[&address, "in use", "--listen"]);

    let nobody = job.run("run").address();
    let ended = hw2(["worker", "--ps", &nobody, "--patience-s", "1"]);
    refused(&ended, FAILURE, &[&nobody, "for 1 s", "--ps"]);
    refused(&hw2(["status", "--ps", &nobody]), FAILURE, &[&nobody, "is it running"]);
    refused(&hw2(["worker", "--ps", "localhost"]), USAGE, &["localhost", "host:port"]);
}

/// The commands that read a checkpoint, all with the same eyes.
fn checkpoint_refused(checkpoint: &Path, parts: &[&str]) {
    let path = checkpoint.as_os_str();
    let image = OsStr::new("photo.png");
    let [digest, eval, predict, flag] =
        ["digest", "eval", "predict", "--checkpoint"].map(OsStr::new);
    refused(&hw2([digest, path]), FAILURE, parts);
    refused(&hw2([eval, flag, path]), FAILURE, parts);
    refused(&hw2([predict, flag, path, image]), FAILURE, parts);
}

#[test]
fn a_checkpoint() {
    let job = trained();
    let file = job.dir().join("x.safetensors");
    checkpoint_refused(&file, &["x.safetensors", "No such file"]);
    checkpoint_refused(&job.data(), &["data holds no checkpoint", "name the run folder"]);

    let whole = fs::read(newest_checkpoint(&job)).unwrap();
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let damaged = ["x.safetensors is damaged", "use another checkpoint"];
    for bytes in [&whole[..whole.len() - 1], &whole[..1_000], &[], b"no checkpoint", &flipped] {
        fs::write(&file, bytes).unwrap();
        checkpoint_refused(&file, &damaged);
    }
    fs::write(&file, &whole).unwrap();
    let ended = hw2([OsStr::new("digest"), file.as_os_str()]);
    assert_eq!(ended.code, Some(0), "whole, it is read: {ended}");
}

#[test]
fn a_run_of_another_model_or_dataset() {
    let job = trained();
    let before = (job.run("run").digest(), entries(&job));
    let resumed = |flags: &[&str]| {
        let mut arguments: Vec<String> = ["train", "--resume"].map(String::from).to_vec();
        let paths = [("--out", job.run("run").dir()), ("--config", job.config())];
        arguments.extend(paths.map(|(flag, path)| format!("{flag}={}", path.display())));
        arguments.extend(flags.iter().map(|flag| (*flag).to_owned()));
        hw2(arguments)
    };
    let data = job.data().display().to_string();
    let other_model = ["--data", &data, "--set", "model.image_size=18"];
    let parts = ["model.image_size is 16 here and 18 there", "a run folder of its own"];
    refused(&resumed(&other_model), FAILURE, &parts);

    fs::remove_file(job.data().join("train/dots/00.png")).unwrap();
    let parts = ["training images is 60 here and 59 there", "dataset fingerprint"];
    refused(&resumed(&["--data", &data]), FAILURE, &parts);
    assert_eq!((job.run("run").digest(), entries(&job)), before);
}

/// Names in the run's folder but for the logs, which tell of what was refused.
fn entries(job: &Job) -> Vec<String> {
    let names = fs::read_dir(job.run("run").dir()).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name != "logs").collect();
    names.sort();
    names
}

#[test]
fn a_checkpoint_that_is_damaged_gives_way_to_the_one_before() {
    let job = trained();
    let digest = job.run("run").digest();
    let newest = newest_checkpoint(&job);
    let bytes = fs::read(&newest).unwrap();
    fs::write(&newest, &bytes[..bytes.len() / 2]).unwrap();
    let run = job.run("run");
    assert_eq!(run.digest().1, 0, "the one of step 0 is whole");

    let (server, worker) = (run.server(), run.worker(0, 1));
    let ended = server.succeed();
    assert!(ended.stderr.contains("checkpoint-00000005.safetensors is damaged"), "{ended}");
    worker.succeed();
    assert_eq!(run.digest(), digest, "the lost steps were computed again");

    for step in [0, 5] {
        fs::write(run.dir().join(format!("checkpoint-{step:08}.safetensors")), "torn").unwrap();
    }
    let ended = run.server().end();
    refused(&ended, FAILURE, &["each of the 2 checkpoints", "damaged", "move them away"]);
}

#[test]
fn a_wire_bench_whose_workers_would_not_find_their_server() {
    let ended = hw2(["bench", "wire", "--listen", "127.0.0.1:0"]);
    refused(&ended, FAILURE, &["127.0.0.1:0", "name one that is free"]);
}

#[test]
fn one_bad_image_among_many_is_named_and_replaced_alike_everywhere() {
    let digests = [1, 2].map(|workers| {
        let job = Job::new();
        let folder = job.data().join("train/dots");
        let whole = fs::read(folder.join("03.png")).unwrap();
        fs::write(folder.join("03.png"), &whole[..whole.len() / 2]).unwrap();
        fs::write(folder.join("04.png"), "").unwrap();
        let run = job.run("run");
        let server = run.server();
        let workers = run.workers(workers);
        run.wait_until("both to be counted", |status| status.bad_images == 2);
        let ended = server.succeed();
        for name in ["train/dots/03.png", "train/dots/04.png"] {
            assert!(ended.stderr.contains(name), "{ended}");
        }
        workers.into_iter().for_each(|worker| _ = worker.succeed());
        run.digest()
    });
    assert_eq!(digests[0], digests[1]);
}

#[test]
fn too_many_bad_images_end_the_run() {
    let job = Job::new();
    for number in 0..12 {
        fs::write(job.data().join(format!("train/dots/{number:02}.png")), "").unwrap();
    }
    let run = job.run("run");
    let (server, worker) = (run.server(), run.worker(0, 1));
    let ended = server.end();
    refused(&ended, FAILURE, &["train/dots/", "images.bad_images_max"]);
    worker.end();
}

#[test]
fn a_place_that_cannot_be_written() {
    let job = Job::new();
    let below_a_file = job.config().join("run").display().to_string();
    server_refused(&job, &["--run-dir", &below_a_file], FAILURE, &[&below_a_file]);
    let (photos, dest) = (job.data().join("train"), job.dir().join("job.toml/split"));
    let arguments = [OsStr::new("split"), photos.as_os_str(), dest.as_os_str()];
    refused(&hw2(arguments), FAILURE, &["job.toml"]);
}
