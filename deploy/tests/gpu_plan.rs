//! What `hw2 bench plan` counts is what a worker asks of a GPU.

use crate::common::{Ended, Job, Process, hw2, hw2_command};

/// What a training step of `network` is planned to launch on a GPU of `kind`, in order.
fn planned(kind: &str, network: &[&str]) -> Vec<String> {
    let plan = hw2([&["bench", "plan", "--gpu", kind, "--json"], network].concat());
    assert_eq!(plan.code, Some(0), "{plan}");
    let plan: serde_json::Value = serde_json::from_str(&plan.stdout).unwrap();
    let ops = plan["ops"].as_array().unwrap().iter();
    let launches = ops.flat_map(|op| op["launches"].as_array().unwrap().clone());
    launches.map(|launch| launch.as_str().unwrap().to_owned()).collect()
}

/// `hw2 bench step` on a software GPU with `settings`, and what that was asked to do.
fn recorded(job: &Job, settings: &str, network: &[&str]) -> (Ended, Vec<String>) {
    let log = job.dir().join("launches");
    let mut command = hw2_command(["bench", "step", "--gpu", "0", "--repeats", "1"]);
    command.args(network).arg("--cuda-lib-dir").arg(hw2_softgpu::libraries());
    command.env("HW2_SOFTGPU", settings).env("HW2_SOFTGPU_LOG", &log);
    let ended = Process::start("bench", command, job.dir()).end();
    assert_eq!(ended.code, Some(0), "{ended}");
    let log = std::fs::read_to_string(log).unwrap();
    (ended, log.lines().map(str::to_owned).collect())
}

#[test]
fn a_step_launches_what_is_planned() {
    for (kind, settings, precision) in [
        ("k80", "cc=3.7 driver=11040", "fp32"),
        ("v100", "cc=7.0", "fp32"),
        ("a100", "cc=8.0", "bf16"),
        ("h100", "cc=9.0", "fp32"),
        ("h100", "cc=9.0", "bf16"),
    ] {
        let network = ["--precision", precision, "--batch", "3", "--image-size", "30"];
        let network = [&network[..], &["--classes", "5"]].concat();
        let (job, plan) = (Job::new(), planned(kind, &network));
        let (_, log) = recorded(&job, settings, &network);
        let first = |launch: &String| launch == &plan[0];
        let begins: Vec<usize> = (0..log.len()).filter(|at| first(&log[*at])).collect();
        let steps = begins.iter().filter(|at| log[**at..].starts_with(&plan)).count();
        // Two to warm up and one that counts; then evaluations, which are no part of the plan.
        assert_eq!(steps, 3, "{precision} on {kind}: of {plan:#?}\n{log:#?}");
    }
}
