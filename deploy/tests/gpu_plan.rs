//! What `hw2 bench plan` counts is what a worker asks of a GPU.

use crate::common::{Ended, Job, Process, hw2, hw2_command};

/// What a training step of `network` is planned to launch, in order.
fn planned(network: &[&str]) -> Vec<String> {
    let plan = hw2([&["bench", "plan", "--gpu", "h100", "--json"], network].concat());
    assert_eq!(plan.code, Some(0), "{plan}");
    let plan: serde_json::Value = serde_json::from_str(&plan.stdout).unwrap();
    let ops = plan["ops"].as_array().unwrap().iter();
    let launches = ops.flat_map(|op| op["launches"].as_array().unwrap().clone());
    launches.map(|launch| launch.as_str().unwrap().to_owned()).collect()
}

/// `hw2 bench step` on a software H100, and what that was asked to do.
fn recorded(job: &Job, network: &[&str]) -> (Ended, Vec<String>) {
    let log = job.dir().join("launches");
    let mut command = hw2_command(["bench", "step", "--gpu", "0", "--repeats", "1"]);
    command.args(network).arg("--cuda-lib-dir").arg(hw2_softgpu::libraries());
    command.env("HW2_SOFTGPU", "cc=9.0").env("HW2_SOFTGPU_LOG", &log);
    let ended = Process::start("bench", command, job.dir()).end();
    assert_eq!(ended.code, Some(0), "{ended}");
    let log = std::fs::read_to_string(log).unwrap();
    (ended, log.lines().map(str::to_owned).collect())
}

#[test]
fn a_step_launches_what_is_planned() {
    for precision in ["fp32", "bf16"] {
        let network = ["--precision", precision, "--batch", "3", "--image-size", "30"];
        let network = [&network[..], &["--classes", "5"]].concat();
        let (job, plan) = (Job::new(), planned(&network));
        let (_, log) = recorded(&job, &network);
        let first = |launch: &String| launch == &plan[0];
        let begins: Vec<usize> = (0..log.len()).filter(|at| first(&log[*at])).collect();
        let steps = begins.iter().filter(|at| log[**at..].starts_with(&plan)).count();
        // Two to warm up and one that counts; then evaluations, which are no part of the plan.
        assert_eq!(steps, 3, "{precision}: of {plan:#?}\n{log:#?}");
    }
}
