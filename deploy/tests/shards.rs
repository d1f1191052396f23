//! A run on several servers gives the checksum of a run on one, whichever of them is killed.

use std::sync::OnceLock;

use nix::sys::signal::Signal;

use crate::common::{Job, Process, Run, hw2, hw2_command};

const STEPS: u64 = 40;

/// The digest of a job on one server, with one worker, when nothing happens.
fn reference(wire: &str) -> &'static str {
    static F32: OnceLock<String> = OnceLock::new();
    static BF16: OnceLock<String> = OnceLock::new();
    let reference = match wire {
        "f32" => &F32,
        _ => &BF16,
    };
    reference.get_or_init(|| undisturbed(&job(wire), 1))
}

fn job(wire: &str) -> Job {
    Job::new().wide().set("wire", wire)
}

/// The digest of an undisturbed run of `job`, on as many servers as it has.
fn undisturbed(job: &Job, workers: usize) -> String {
    let run = job.run("run");
    let servers = run.servers();
    let workers = run.workers(workers);
    finish(&run, servers, workers)
}

/// Waits for the end in good order of everybody.
fn finish(run: &Run, servers: Vec<Process>, workers: Vec<Process>) -> String {
    servers.into_iter().for_each(|server| _ = server.succeed());
    workers.into_iter().for_each(|worker| _ = worker.succeed());
    let (digest, step) = run.digest();
    assert_eq!(step, STEPS);
    digest
}

fn any_number_of_workers(job: impl Fn() -> Job, wire: &str) {
    for workers in [1, 2, 5] {
        let digest = undisturbed(&job().on_servers(3), workers);
        assert_eq!(digest, reference(wire), "{workers} workers");
    }
}

#[test]
fn three_servers() {
    any_number_of_workers(|| job("f32"), "f32");
}

#[test]
fn three_servers_over_tcp() {
    any_number_of_workers(|| job("f32").over_tcp(), "f32");
}

#[test]
fn three_servers_with_half_the_bytes() {
    any_number_of_workers(|| job("bf16"), "bf16");
}

#[test]
fn three_servers_with_half_the_bytes_over_tcp() {
    any_number_of_workers(|| job("bf16").over_tcp(), "bf16");
}

#[test]
fn two_servers_and_a_gpu() {
    let expected = undisturbed(&job("f32").on_gpu(), 1);
    assert_eq!(undisturbed(&job("f32").on_gpu().on_servers(2), 2), expected);
}

/// Each of the servers is killed at a step of its own, and started again.
#[test]
fn each_server_is_killed_once() {
    for wire in ["f32", "bf16"] {
        let job = job(wire).on_servers(3);
        let run = job.run("run");
        let mut servers = run.servers();
        let workers = run.workers(2);
        for (victim, step) in [(1, 3), (0, 12), (2, 21)] {
            run.wait_until("a step", |status| status.global_step >= step);
            kill(servers.remove(victim));
            let again = if victim == 0 { run.server() } else { run.follower(victim) };
            servers.insert(victim, again);
        }
        assert_eq!(finish(&run, servers, workers), reference(wire), "{wire}");
    }
}

/// All others are there all the time.
#[test]
fn a_server_and_a_worker_are_killed_together() {
    let job = job("f32").on_servers(2).set("cluster.heartbeat_timeout_ms", 2_000);
    let run = job.run("run");
    let mut servers = run.servers();
    let mut workers = run.workers(2);
    let before = run.wait_until("a step", |status| status.global_step >= 7);
    servers[1].signal(Signal::SIGSTOP);
    workers[0].signal(Signal::SIGSTOP);
    kill(servers.remove(1));
    kill(workers.remove(0));
    run.wait_until("to wait for it", |status| status.phase.starts_with("waiting for shard 1/2"));
    servers.push(run.follower(1));
    run.wait_until("the run to go on", |status| status.global_step > before.global_step);
    assert_eq!(finish(&run, servers, workers), reference("f32"));
}

/// What three servers have begun, one ends, and two.
#[test]
fn any_number_of_servers_goes_on_with_the_checkpoints_of_any_other() {
    let jobs = [3, 1, 2].map(|servers| {
        let job = job("f32");
        if servers == 1 { job } else { job.on_servers(servers) }
    });
    let shared = jobs[0].dir().join("shared");
    for (job, until) in jobs.iter().zip([10, 25, STEPS]) {
        let run = job.run_in(&shared).until(until);
        let servers = run.servers();
        let workers = run.workers(2);
        servers.into_iter().for_each(|server| _ = server.succeed());
        workers.into_iter().for_each(|worker| _ = worker.succeed());
        assert_eq!(run.digest().1, until);
        if until == STEPS {
            assert_eq!(run.digest().0, reference("f32"));
        }
    }
}

/// The run stops in good order, and goes on as if it had not.
#[test]
fn a_follower_is_asked_to_stop() {
    let job = job("f32").on_servers(2);
    let run = job.run("run");
    let servers = run.servers();
    let workers = run.workers(2);
    run.wait_until("a step", |status| status.global_step >= 7);
    servers[1].signal(Signal::SIGTERM);
    servers.into_iter().for_each(|server| _ = server.succeed());
    for worker in workers {
        let ended = worker.end();
        assert_eq!(ended.code, Some(75), "{ended}");
        assert!(ended.stderr.contains("shard 1/2 was asked to stop"), "{ended}");
    }
    let stopped_at = run.digest().1;
    assert!((7..STEPS).contains(&stopped_at), "{stopped_at}");
    let servers = run.servers();
    let workers = run.workers(2);
    assert_eq!(finish(&run, servers, workers), reference("f32"));
}

fn kill(process: Process) {
    process.signal(Signal::SIGKILL);
    assert_eq!(process.end().signal, Some(Signal::SIGKILL as i32));
}

#[test]
fn a_server_that_does_not_see_the_folder_of_the_run_says_so() {
    let job = job("f32").on_servers(2);
    let run = job.run("run");
    let first = run.server();
    let elsewhere = job.dir().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    let mut command = run.follower_command(1);
    command.arg("--run-dir").arg(&elsewhere);
    let ended = Process::start("blind", command, job.dir()).end();
    assert_eq!(ended.code, Some(1), "{ended}");
    for part in ["does not see the run's folder", "elsewhere", "all servers must share"] {
        assert!(ended.stderr.contains(part), "{ended}");
    }
    first.signal(Signal::SIGTERM);
    first.succeed();
}

#[test]
fn servers_that_are_none_of_the_run_are_refused() {
    let job = job("f32").on_servers(2);
    let run = job.run("run");
    let servers = run.servers();
    run.wait_until("both servers", |status| status.phase == "waiting for workers");
    let refused = |code: i32, arguments: &[&str], parts: &[&str]| {
        let ended = hw2(arguments);
        assert_eq!(ended.code, Some(code), "{ended}");
        for part in parts {
            assert!(ended.stderr.contains(part), "{part}: {ended}");
        }
    };
    let [first, second] = [0, 1].map(|shard| run.addresses()[shard].clone());
    let free = format!("unix:{}", job.dir().join("free.sock").display());
    let follower = |shard| ["server", "--listen", &free, "--shard", shard, "--coordinator", &first];
    refused(1, &follower("2/3"), &["shard 2/3 in a run on 2 servers"]);
    refused(2, &["server", "--listen", &free, "--shard", "1/2"], &["--coordinator"]);
    refused(2, &["server", "--listen", &free, "--shard", "2/2"], &["there is no 2 of 2"]);
    for flag in [["--set", "seed=2"], ["--data", "data"], ["--trace", "trace.json"]] {
        let line = [follower("1/2").as_slice(), &flag].concat();
        refused(2, &line, &[flag[0], "is for the first server"]);
    }
    let worker = |ps: &str| -> Vec<String> {
        ["worker", "--device", "cpu", "--ps", ps].map(str::to_owned).to_vec()
    };
    for ps in [first.clone(), format!("{second},{first}"), format!("{first},{first}")] {
        let line = worker(&ps);
        let line: Vec<&str> = line.iter().map(String::as_str).collect();
        refused(1, &line, &["in their order"]);
    }
    for server in servers {
        server.signal(Signal::SIGTERM);
        server.succeed();
    }
}

#[test]
fn the_front_door_starts_several_servers() {
    let job = job("f32").set("replicas", 3);
    let out = job.dir().join("trained");
    let mut command = hw2_command(["train", "--workers", "2", "--shards", "3", "--device", "cpu"]);
    command.arg("--config").arg(job.config()).arg("--data").arg(job.data());
    command.arg("--out").arg(&out);
    for setting in job.settings() {
        command.args(["--set", setting]);
    }
    Process::start("train", command, job.dir()).succeed();
    assert_eq!(job.run("trained").digest().0, reference("f32"));
}
