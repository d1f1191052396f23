//! One job gives one checksum, however many workers and threads ran it and whoever was killed.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use hw2_common::checkpoint::{Which, find};
use nix::sys::signal::Signal;

use crate::common::{Job, Process, Run, Status};

/// Its `max_steps`.
const STEPS: u64 = 40;
/// Its `checkpoint_every`.
const CHECKPOINT_EVERY: u64 = 5;

/// The tiny job in one of its kinds: on a device, with a format of the wire.
struct Device {
    job: fn() -> Job,
    /// Its digest when nothing happens: one worker, one thread.
    reference: OnceLock<String>,
}

static CPU: Device = Device { job: Job::new, reference: OnceLock::new() };
static BF16: Device = Device { job: || Job::new().set("wire", "bf16"), reference: OnceLock::new() };
static GPU: Device = Device { job: || Job::new().on_gpu(), reference: OnceLock::new() };

impl Device {
    fn reference(&self) -> &str {
        self.reference.get_or_init(|| {
            let job = (self.job)();
            let run = job.run("reference");
            undisturbed(&run, 1);
            let evaluated: Vec<u64> = run.evaluations().iter().map(|found| found.step).collect();
            assert_eq!(evaluated, (0..=STEPS).step_by(5).collect::<Vec<_>>());
            assert!(run.halvings() >= 1, "the job is to halve its rate: {:?}", run.evaluations());
            digest(&run)
        })
    }

    fn check(&self, run: &Run, what: &str) {
        assert_eq!(digest(run), self.reference(), "{what}");
    }
}

/// Of the last checkpoint, which must be that of the last step.
fn digest(run: &Run) -> String {
    let (digest, step) = run.digest();
    assert_eq!(step, STEPS);
    digest
}

/// Runs to the end with one worker of so many threads.
fn undisturbed(run: &Run, threads: usize) {
    let (server, worker) = (run.server(), run.worker(0, threads));
    server.succeed();
    worker.succeed();
}

/// Waits for the end of the server; returns what each worker had contributed by then.
fn contributions(run: &Run, mut server: Process) -> BTreeMap<String, u64> {
    let mut contributions = BTreeMap::new();
    while !server.has_ended() {
        for worker in run.status().map(|status| status.workers).unwrap_or_default() {
            contributions.insert(worker.label, worker.contributions);
        }
    }
    server.succeed();
    contributions
}

fn with_workers(device: &Device, counts: &[usize]) {
    with_workers_of(device, device.job, counts);
}

fn with_workers_of(device: &Device, job: impl Fn() -> Job, counts: &[usize]) {
    for count in counts.iter().copied() {
        let job = job();
        let run = job.run("run");
        let server = run.server();
        let workers = run.workers(count);
        let contributions = contributions(&run, server);
        workers.into_iter().for_each(|worker| _ = worker.succeed());
        let worked = contributions.values().filter(|contributed| **contributed > 0).count();
        assert_eq!(worked, count, "every worker is to contribute: {contributions:?}");
        device.check(&run, &format!("{count} workers"));
    }
}

#[test]
fn any_number_of_workers() {
    with_workers(&CPU, &[1, 2, 3, 5]);
}

#[test]
fn any_number_of_workers_with_a_gpu() {
    with_workers(&GPU, &[1, 2, 3]);
}

#[test]
fn any_number_of_workers_over_tcp() {
    with_workers_of(&CPU, || Job::new().over_tcp(), &[1, 2, 5]);
}

#[test]
fn any_number_of_workers_with_half_the_bytes() {
    assert_ne!(BF16.reference(), CPU.reference());
    with_workers(&BF16, &[2, 5]);
}

#[test]
fn any_number_of_workers_with_half_the_bytes_over_tcp() {
    with_workers_of(&BF16, || (BF16.job)().over_tcp(), &[1, 2, 5]);
}

#[test]
fn any_number_of_threads() {
    for threads in [1, 2, 3, 7] {
        let job = Job::new();
        let run = job.run("run");
        undisturbed(&run, threads);
        CPU.check(&run, &format!("{threads} threads"));
    }
}

#[test]
fn a_worker_that_hangs_while_it_holds_a_lease_and_is_killed() {
    hanging_worker(&CPU);
}

#[test]
fn a_worker_with_half_the_bytes_that_hangs_and_is_killed() {
    hanging_worker(&BF16);
}

#[test]
fn a_worker_that_hangs_with_a_gpu_and_is_killed() {
    hanging_worker(&GPU);
}

fn hanging_worker(device: &Device) {
    let job = (device.job)()
        .set("cluster.heartbeat_interval_ms", 100)
        .set("cluster.heartbeat_timeout_ms", 2_000);
    let run = job.run("run");
    let server = run.server();
    let mut workers = run.workers(2);
    let victim = workers.remove(0);
    let holds = |status: &Status| {
        status.worker(victim.pid()).is_some_and(|worker| !worker.leased_replicas.is_empty())
    };
    let owes = |status: &Status| {
        status.worker(victim.pid()).is_some_and(|worker| !worker.owed_replicas.is_empty())
    };
    run.wait_until("the victim to hold a lease", |status| status.global_step > 0 && holds(status));
    victim.signal(Signal::SIGSTOP);
    run.wait_until("the victim to be waited for", owes);
    run.wait_until("another to take its lease", |status| status.releases >= 1 && !holds(status));
    victim.signal(Signal::SIGKILL);
    assert_eq!(victim.end().signal, Some(Signal::SIGKILL as i32));
    server.succeed();
    workers.into_iter().for_each(|worker| _ = worker.succeed());
    device.check(&run, "a worker hung and was killed");
}

/// Nobody waits for its silence, which would take a day.
#[test]
fn a_worker_that_is_killed_is_missed_at_once() {
    let job = (CPU.job)().set("cluster.heartbeat_timeout_ms", 24 * 3_600_000);
    let run = job.run("run");
    let server = run.server();
    let mut workers = run.workers(2);
    let victim = workers.remove(0);
    let owes = |status: &Status| {
        status.worker(victim.pid()).is_some_and(|worker| !worker.owed_replicas.is_empty())
    };
    run.wait_until("the victim to be waited for", |status| status.global_step > 0 && owes(status));
    victim.signal(Signal::SIGKILL);
    assert_eq!(victim.end().signal, Some(Signal::SIGKILL as i32));
    server.succeed();
    workers.into_iter().for_each(|worker| _ = worker.succeed());
    CPU.check(&run, "a worker was killed");
}

#[test]
fn a_server_that_is_killed_past_a_checkpoint_and_started_again() {
    killed_server(&CPU);
}

#[test]
fn a_server_with_half_the_bytes_that_is_killed_past_a_checkpoint_and_started_again() {
    killed_server(&BF16);
}

#[test]
fn a_server_of_gpus_that_is_killed_past_a_checkpoint_and_started_again() {
    killed_server(&GPU);
}

fn killed_server(device: &Device) {
    let job = (device.job)();
    let run = job.run("run");
    let server = run.server();
    let workers = run.workers(2);
    let committed = stop_between_checkpoints(&run, &workers);
    server.signal(Signal::SIGKILL);
    assert_eq!(server.end().signal, Some(Signal::SIGKILL as i32));
    let (_, kept) = run.digest();
    assert!(kept < committed, "step {kept} is kept, and {committed} is to be replayed");

    let server = run.server();
    workers.iter().for_each(|worker| worker.signal(Signal::SIGCONT));
    run.wait_until("a step to be replayed", |status| status.replayed_steps >= 1);
    server.succeed();
    workers.into_iter().for_each(|worker| _ = worker.succeed());
    device.check(&run, "the server was killed");
}

/// Stops all workers when steps have been committed after a checkpoint that has been written;
/// returns the last of these steps.
fn stop_between_checkpoints(run: &Run, workers: &[Process]) -> u64 {
    let between = |status: &Status| {
        status.global_step > CHECKPOINT_EVERY
            && !status.global_step.is_multiple_of(CHECKPOINT_EVERY)
            && !status.last_checkpoint.is_empty()
    };
    let mut committed = 0;
    run.wait_until("a step between two checkpoints", |status| {
        if !between(status) {
            return false;
        }
        workers.iter().for_each(|worker| worker.signal(Signal::SIGSTOP));
        // The server may have gone on until they stopped, but now it waits for them.
        let standing = run.status().filter(between);
        committed = standing.as_ref().map_or(0, |status| status.global_step);
        if standing.is_none() {
            workers.iter().for_each(|worker| worker.signal(Signal::SIGCONT));
        }
        standing.is_some()
    });
    committed
}

#[test]
fn another_seed_changes_it() {
    let job = Job::new().set("seed", 2);
    let run = job.run("run");
    undisturbed(&run, 1);
    assert_ne!(digest(&run), CPU.reference());
}

#[test]
fn one_more_step_changes_it() {
    let job = Job::new().set("max_steps", STEPS + 1);
    let run = job.run("run");
    undisturbed(&run, 1);
    let (digest, step) = run.digest();
    assert_eq!(step, STEPS + 1);
    assert_ne!(digest, CPU.reference());
}

#[test]
fn one_more_halving_changes_it() {
    let job = Job::new();
    let run = job.run("run");
    undisturbed(&run, 1);
    assert_eq!(digest(&run), CPU.reference());
    let mut checkpoint = find(&run.dir(), Which::Newest).unwrap();
    checkpoint.state.progress.learning_rate /= 2.0;
    checkpoint.state.progress.halvings += 1;
    checkpoint.write(&run.dir()).unwrap();
    assert_ne!(digest(&run), CPU.reference());
}

#[test]
fn a_gpu_computes_other_bits() {
    assert_ne!(GPU.reference(), CPU.reference());
}
