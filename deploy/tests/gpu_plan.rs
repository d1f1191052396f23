//! What `hw2 bench plan` counts is what a worker asks of a GPU.

use std::path::Path;

use crate::common::{Job, Process, hw2, hw2_command};

/// What a training step of `network` is planned to launch on a GPU of `kind`, in order: to finish
/// photos, and from then on.
fn planned(kind: &str, network: &[&str]) -> [Vec<String>; 2] {
    let plan = hw2([&["bench", "plan", "--gpu", kind, "--json"], network].concat());
    assert_eq!(plan.code, Some(0), "{plan}");
    let plan: serde_json::Value = serde_json::from_str(&plan.stdout).unwrap();
    [true, false].map(|of_photos| {
        let ops = plan["ops"].as_array().unwrap().iter();
        let ops = ops.filter(|op| (op["layer"] == "photos") == of_photos);
        let launches = ops.flat_map(|op| op["launches"].as_array().unwrap().clone());
        launches.map(|launch| launch.as_str().unwrap().to_owned()).collect()
    })
}

/// How often `launches` are in `log`, one after another.
fn times(launches: &[String], log: &[String]) -> usize {
    log.windows(launches.len()).filter(|window| *window == launches).count()
}

fn lines(log: &Path) -> Vec<String> {
    std::fs::read_to_string(log).unwrap().lines().map(str::to_owned).collect()
}

/// `hw2 bench step` on a software GPU with `settings`, and what that was asked to do.
fn recorded(job: &Job, settings: &str, network: &[&str]) -> Vec<String> {
    let log = job.dir().join("launches");
    let mut command = hw2_command(["bench", "step", "--gpu", "0", "--repeats", "1"]);
    command.args(network).arg("--cuda-lib-dir").arg(hw2_softgpu::libraries());
    command.env("HW2_SOFTGPU", settings).env("HW2_SOFTGPU_LOG", &log);
    Process::start("bench", command, job.dir()).succeed();
    lines(&log)
}

#[test]
fn a_step_launches_what_is_planned() {
    for (kind, settings, precision) in [
        ("k80", "cc=3.7 driver=11040", "fp32"),
        ("v100", "cc=7.0", "fp32"),
        ("a100", "cc=8.0", "tf32"),
        ("a100", "cc=8.0", "bf16"),
        ("h100", "cc=9.0", "fp32"),
        ("h100", "cc=9.0", "bf16"),
    ] {
        let network = ["--precision", precision, "--batch", "3", "--image-size", "30"];
        let network = [&network[..], &["--classes", "5"]].concat();
        let (job, [_, plan]) = (Job::new(), planned(kind, &network));
        let log = recorded(&job, settings, &network);
        // Two to warm up and one that counts; then evaluations, which are no part of the plan.
        assert_eq!(times(&plan, &log), 3, "{precision} on {kind}: of {plan:#?}\n{log:#?}");
    }
}

#[test]
fn photos_are_finished_as_planned() {
    let job = Job::new().set("max_steps", 3).on_gpu();
    let images = ["--batch", "16", "--image-size", "16", "--classes", "4"];
    let [plan, _] = planned("a100", &images);
    let (run, log) = (job.run("run"), job.dir().join("launches"));
    let mut command = hw2_command(["worker", "--ps", &run.address(), "--patience-s", "60"]);
    command.args(["--gpu", "0", "--cuda-lib-dir"]).arg(hw2_softgpu::libraries());
    command.env("HW2_SOFTGPU", "cc=8.0").env("HW2_SOFTGPU_LOG", &log);
    let (server, worker) = (run.server(), Process::start("worker", command, job.dir()));
    server.succeed();
    worker.succeed();
    let log = lines(&log);
    assert!(times(&plan, &log) >= 3, "{plan:#?}\n{log:#?}");
}
