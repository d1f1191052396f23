//! `--gpu 0,1`: a worker process for each GPU, on a software GPU with two.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::common::{Job, Process, Run, Status, hw2, hw2_command, is_gone, wait_for};

/// A job whose workers compute on GPU 0 where nothing else is said.
fn job() -> Job {
    Job::new().set("max_steps", 12).on_gpu()
}

/// `hw2 worker` of `run` with `flags`, on a software GPU with two.
fn workers(job: &Job, run: &Run, flags: &[&str]) -> Process {
    let mut command = hw2_command(["worker", "--ps", &run.address(), "--patience-s", "60"]);
    command.arg("--cuda-lib-dir").arg(hw2_softgpu::libraries()).args(flags);
    command.args(["--threads", "1"]).env("HW2_SOFTGPU", "devices=2");
    Process::start("workers", command, job.dir())
}

/// Waits until both children of `parent` have joined, and stops each when it has, so that none
/// works on before the other. Returns the one on GPU 0 and the one on GPU 1.
fn both_joined(run: &Run, parent: &Process) -> [Pid; 2] {
    let mut joined: Vec<Pid> = Vec::new();
    let label = |status: &Status, pid: &Pid| {
        status.worker(pid.as_raw() as u32).map(|worker| worker.label.clone())
    };
    let status = run.wait_until("both workers to join", |status| {
        for child in parent.children() {
            if !joined.contains(&child) && label(status, &child).is_some() {
                kill(child, Signal::SIGSTOP).unwrap();
                joined.push(child);
            }
        }
        joined.len() == 2
    });
    joined.sort_by_key(|child| label(&status, child));
    let on = |place: usize| label(&status, &joined[place]).unwrap();
    assert!(on(0).contains("GPU 0: ") && on(1).contains("GPU 1: "), "{} {}", on(0), on(1));
    [joined[0], joined[1]]
}

fn go_on(children: &[Pid]) {
    children.iter().for_each(|child| kill(*child, Signal::SIGCONT).unwrap());
}

#[test]
fn each_gpu_has_a_worker_and_the_checksum_is_that_of_one() {
    let job = job();
    let [one, two, killed] = ["one", "two", "killed"].map(|name| job.run(name));
    let (server, worker) = (one.server(), one.worker(0, 1));
    server.succeed();
    worker.succeed();

    let (server, parent) = (two.server(), workers(&job, &two, &["--gpu", "0,1"]));
    go_on(&both_joined(&two, &parent));
    server.succeed();
    let ended = parent.succeed();
    for gpu in ["GPU 0 | ", "GPU 1 | "] {
        let lines: Vec<_> = ended.stderr.lines().filter(|line| line.starts_with(gpu)).collect();
        assert!(lines.iter().any(|line| line.contains("joined as")), "{gpu}: {ended}");
    }
    assert_eq!(two.digest(), one.digest());

    let (server, parent) = (killed.server(), workers(&job, &killed, &["--gpu", "0,1"]));
    let [first, second] = both_joined(&killed, &parent);
    kill(second, Signal::SIGKILL).unwrap();
    go_on(&[first]);
    server.succeed();
    let ended = parent.end();
    assert_eq!(ended.code, Some(1), "{ended}");
    assert!(ended.stderr.contains("the worker on GPU 1 was killed by signal 9"), "{ended}");
    assert_eq!(killed.digest(), one.digest());
}

#[test]
fn workers_leave_when_their_parent_is_asked_to_stop() {
    let job = job().set("max_steps", 100_000).set("stop_patience", 1000);
    let run = job.run("run");
    let (server, parent) = (run.server(), workers(&job, &run, &["--gpu", "0,1"]));
    let children = both_joined(&run, &parent);
    go_on(&children);
    parent.signal(Signal::SIGTERM);
    let ended = parent.end();
    assert_eq!(ended.code, Some(75), "{ended}");
    assert!(children.iter().all(is_gone), "{ended}");
    assert_eq!(run.status().expect("the server is there").workers.len(), 0);
    server.signal(Signal::SIGTERM);
    server.succeed();
}

#[test]
fn workers_leave_when_their_parent_is_killed() {
    let job = job().set("max_steps", 100_000).set("stop_patience", 1000);
    let run = job.run("run");
    let (server, parent) = (run.server(), workers(&job, &run, &["--gpu", "0,1"]));
    let children = both_joined(&run, &parent);
    go_on(&children);
    parent.signal(Signal::SIGKILL);
    wait_for("the workers to end", || children.iter().all(is_gone).then_some(()));
    assert_eq!(parent.end().signal, Some(Signal::SIGKILL as i32));
    assert_eq!(run.status().expect("the server is there").workers.len(), 0);
    server.signal(Signal::SIGTERM);
    server.succeed();
}

#[test]
fn flags_that_mean_nothing_are_refused_before_anything_starts() {
    let job = job();
    let run = job.run("run");
    for (gpus, part) in [
        ("0,0", "GPU 0 is named twice"),
        ("", "`` is no number of a GPU"),
        ("0,x", "`x` is no number of a GPU"),
        ("0,2", "GPU 2: there is no such GPU: they are numbered from 0 to 1"),
    ] {
        let ended = workers(&job, &run, &["--gpu", gpus]).end();
        assert_eq!(ended.code, Some(2), "{ended}");
        assert!(ended.stderr.contains(part) && !ended.stderr.contains(" | "), "{part}: {ended}");
    }
    let out = job.dir().join("idle").display().to_string();
    let ended = hw2(["train", "--gpu", "0,1", "--workers", "1", "--out", &out]);
    assert_eq!(ended.code, Some(2), "{ended}");
    assert!(ended.stderr.contains("--gpu 0,1 with --workers 1"), "{ended}");
    let ended = hw2(["bench", "step", "--gpu", "0,1"]);
    assert_eq!(ended.code, Some(2), "{ended}");
    assert!(ended.stderr.contains("--gpu 0,1: this command computes on one GPU"), "{ended}");
}

#[test]
fn the_workers_of_a_cluster_take_the_gpus_in_turn() {
    let job = job();
    let mut command = hw2_command(["train", "--json", "--config"]);
    command.arg(job.config()).arg("--data").arg(job.data());
    command.arg("--out").arg(job.dir().join("run")).args(["--set", "max_steps=5"]);
    command.args(["--workers", "2", "--gpu", "0", "--cuda-lib-dir"]);
    command.arg(hw2_softgpu::libraries());
    Process::start("train", command, job.dir()).succeed();
    for worker in ["worker-0", "worker-1"] {
        let log = job.dir().join("run/logs").join(format!("{worker}.log"));
        let log = std::fs::read_to_string(log).unwrap();
        assert!(log.contains("joined as"), "{worker}: {log}");
    }
}
