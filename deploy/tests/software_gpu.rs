//! Workers on the software GPU: what goes wrong with a GPU, and what a person is told.

use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;

use crate::common::{Ended, Job, Process, Status, hw2, hw2_command, wait_for};

/// `hw2 worker` of the run's server on GPU `gpu` of a software GPU with `settings`.
fn worker_on(job: &Job, address: &str, gpu: usize, settings: &str) -> Process {
    let gpu = gpu.to_string();
    let mut command = hw2_command(["worker", "--ps", address, "--patience-s", "60"]);
    command.args(["--gpu", &gpu, "--cuda-lib-dir"]).arg(hw2_softgpu::libraries());
    command.env("HW2_SOFTGPU", settings);
    Process::start("worker", command, job.dir())
}

fn says(ended: &Ended, code: i32, parts: &[&str]) {
    assert_eq!(ended.code, Some(code), "{ended}");
    for part in parts {
        assert!(ended.stderr.contains(part), "{part}: {ended}");
    }
}

fn with_libraries_of(folder: &Path) -> Ended {
    let folder = folder.to_str().unwrap();
    hw2(["worker", "--ps", "unix:/nowhere.sock", "--gpu", "0", "--cuda-lib-dir", folder])
}

#[test]
fn a_library_that_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().display().to_string();
    let ended = with_libraries_of(folder.path());
    says(&ended, 2, &["GPU 0", "libcuda.so", &place, "driver", "--device cpu"]);
    assert_eq!(ended.stderr.trim().lines().count(), 1, "one sentence: {ended}");
    let link = |name: &str| {
        let library = hw2_softgpu::libraries().join(name);
        std::os::unix::fs::symlink(library, folder.path().join(name)).unwrap();
    };
    link("libcuda.so");
    says(&with_libraries_of(folder.path()), 2, &["libnvrtc.so of CUDA 11", &place, "pip install"]);
    link("libnvrtc.so");
    says(&with_libraries_of(folder.path()), 2, &["libcublas.so of CUDA 11", &place, "pip install"]);
}

/// A library in `folder` that has nothing but `functions`, and that the loader knows as `name`.
fn other_library(folder: &Path, name: &str, functions: &str) {
    let source = folder.join("other.cpp");
    std::fs::write(&source, functions).unwrap();
    let mut command = Command::new("g++");
    command.args(["-shared", "-fPIC"]).arg(format!("-Wl,-soname,{name}"));
    let output = command.arg("-o").arg(folder.join(name)).arg(source).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// As on a machine with a driver, and where a toolkit is installed for all programs.
#[test]
fn libraries_that_are_named_are_the_ones_used() {
    let (job, others) = (Job::new(), tempfile::tempdir().unwrap());
    for name in ["libcuda.so", "libcuda.so.1", "libcublas.so", "libcublas.so.11"] {
        other_library(others.path(), name, "");
    }
    let mut command = hw2_command(["bench", "step", "--gpu", "0", "--repeats", "1"]);
    command.args(["--batch", "2", "--image-size", "20", "--classes", "5", "--cuda-lib-dir"]);
    command.arg(hw2_softgpu::libraries()).env("LD_LIBRARY_PATH", others.path());
    let ended = Process::start("bench", command, job.dir()).succeed();
    assert!(ended.stdout.contains("GPU 0"), "{ended}");
}

/// cudarc finds a libcuda by its name, and none by a path.
#[test]
fn a_driver_that_would_not_be_called_is_refused() {
    let (job, named) = (Job::new(), tempfile::tempdir().unwrap());
    other_library(named.path(), "libcuda.so.1", "extern \"C\" int cuInit(unsigned) { return 0; }");
    let mut command = hw2_command(["bench", "step", "--gpu", "0", "--cuda-lib-dir"]);
    command.arg(named.path()).env("LD_LIBRARY_PATH", hw2_softgpu::libraries());
    let ended = Process::start("bench", command, job.dir()).end();
    let place = named.path().join("libcuda.so.1").display().to_string();
    says(&ended, 2, &["GPU 0: the loader finds a libcuda.so before ", &place, "LD_LIBRARY_PATH"]);
}

#[test]
fn a_gpu_that_is_not_there() {
    let job = Job::new();
    let worker = |gpu, settings| worker_on(&job, "unix:/nowhere.sock", gpu, settings).end();
    says(&worker(2, "devices=2"), 2, &["GPU 2", "no such GPU", "0 to 1"]);
    says(&worker(0, "devices=0"), 2, &["GPU 0", "NO_DEVICE", "CUDA_VISIBLE_DEVICES"]);
    says(&worker(0, "cc=12.0 driver=12040"), 2, &["GPU 0", "libnvrtc.so of CUDA 12 for sm_120"]);
    says(&worker(0, "cc=9.9 driver=11040"), 2, &["capability 9.9", "update the driver"]);
    says(&worker(0, "driver=10020"), 2, &["GPU 0", "CUDA 10.2", "11.4", "update the driver"]);
}

/// `hw2 doctor` in a folder of locks of its own, so that no other test's GPUs are taken there.
fn doctor(job: &Job, settings: &str) -> String {
    let mut command = hw2_command(["doctor", "--cuda-lib-dir"]);
    command.arg(hw2_softgpu::libraries()).env("HW2_SOFTGPU", settings);
    command.env("TMPDIR", job.dir());
    let ended = Process::start("doctor", command, job.dir()).end();
    assert_eq!(ended.code, Some(0), "{ended}");
    ended.stdout
}

#[test]
fn what_a_machine_has() {
    let job = Job::new();
    let found = doctor(&job, "devices=2 cc=3.7 driver=11040 memory_mb=12288");
    for part in [
        "CUDA 11.4",
        "GPU 1",
        "capability 3.7, 12.0 GiB",
        "libnvrtc.so.11.2 (CUDA 11)",
        "takes GPU 0",
    ] {
        assert!(found.contains(part), "{part}: {found}");
    }
    let found = doctor(&job, "cc=12.0 driver=13000");
    assert!(found.contains("NONE: libcublas.so of CUDA 13 or 12"), "{found}");
    assert!(found.contains("takes the CPU: GPU 0: libnvrtc.so of CUDA 13 or 12"), "{found}");
    let found = doctor(&job, "cc=8.8 driver=11040");
    assert!(found.contains("libnvrtc.so.11.2 (CUDA 11, compiles for sm_86, which runs"), "{found}");
    let found = doctor(&job, "devices=0");
    assert!(found.contains("takes the CPU"), "{found}");
}

/// Each takes the first that is free; the last one has to do with the CPU.
#[test]
fn workers_share_the_gpus_of_a_machine() {
    let job = Job::new().set("cluster.allow_mixed", true);
    let run = job.run("run");
    let server = run.server();
    let mut workers = Vec::new();
    for number in 0..3 {
        let mut command = hw2_command(["worker", "--ps", &run.address(), "--threads", "1"]);
        command.arg("--cuda-lib-dir").arg(hw2_softgpu::libraries());
        command.env("HW2_SOFTGPU", "devices=2").env("TMPDIR", job.dir());
        let worker = Process::start(&format!("worker-{number}"), command, job.dir());
        let joined =
            |status: &Status| status.worker(worker.pid()).map(|worker| worker.label.clone());
        let status = run.wait_until("a worker to join", |status| joined(status).is_some());
        let label = joined(&status).unwrap();
        assert!(label.contains(["GPU 0", "GPU 1", "CPU"][number]), "worker {number}: {label}");
        worker.signal(Signal::SIGSTOP);
        workers.push(worker);
    }
    let found = doctor(&job, "devices=2");
    assert!(found.contains("takes the CPU: GPU 0: another worker computes on it"), "{found}");
    workers.iter().for_each(|worker| worker.signal(Signal::SIGCONT));
    server.signal(Signal::SIGTERM);
    server.succeed();
}

/// What a graph would repeat is asked for one by one: where functions are missing, a call of which
/// would be a panic, and where graphs are refused.
#[test]
fn a_driver_without_graphs_gives_the_same_bits() {
    let job = Job::new().set("max_steps", 6).on_gpu();
    let [with, without, refused] = ["with", "without", "refused"].map(|name| job.run(name));
    let (server, worker) = (with.server(), with.worker(0, 1));
    server.succeed();
    worker.succeed();
    let server = without.server();
    let mut command = hw2_command(["worker", "--ps", &without.address(), "--patience-s", "60"]);
    command.args(["--gpu", "0", "--cuda-lib-dir"]).arg(hw2_softgpu::without(&["cuGraphLaunch"]));
    let worker = Process::start("worker-without-graphs", command, job.dir());
    server.succeed();
    worker.succeed();
    assert_eq!(with.digest(), without.digest());
    let (server, worker) = (refused.server(), worker_on(&job, &refused.address(), 0, "graphs=0"));
    server.succeed();
    let ended = worker.succeed();
    assert!(ended.stderr.contains("no graph of the launches"), "{ended}");
    assert_eq!(with.digest(), refused.digest());
}

/// The run goes on with the next worker, and nothing of it is lost. Who has no room for the network
/// does not even join.
#[test]
fn a_gpu_that_fails_under_way_gives_its_leases_back() {
    let job = Job::new().set("max_steps", 4).set("checkpoint_every", 2).on_gpu();
    let run = job.run("run");
    let server = run.server();
    for (settings, problem, remedy) in [
        ("fail_alloc=4", "out of memory", "use a smaller batch_size"),
        ("memory_mb=34", "out of memory", "use a smaller batch_size"),
        ("fail_launch=300", "LAUNCH_FAILED", "see `dmesg` for Xid"),
        ("lose=400", "LAUNCH_FAILED", "see `dmesg` for Xid"),
        ("lose=500 fail_with=214", "ECC_UNCORRECTABLE", "see `nvidia-smi -q -d ECC`"),
    ] {
        let ended = worker_on(&job, &run.address(), 0, settings).end();
        let gpu = "GPU 0 (GPU-00000000-0000-0000-0000-000000000000): ";
        says(&ended, 1, &[gpu, problem, remedy]);
        let has_room = problem != "out of memory";
        assert_eq!(ended.stderr.contains("joined as"), has_room, "{ended}");
    }
    assert_eq!(run.status().expect("the server is there").workers.len(), 0);
    let worker = run.worker(0, 1);
    server.succeed();
    worker.succeed();
    let undisturbed = job.run("undisturbed");
    let (server, worker) = (undisturbed.server(), undisturbed.worker(0, 1));
    server.succeed();
    worker.succeed();
    assert_eq!(run.digest(), undisturbed.digest());
}

/// Its worker cannot leave, and is missed as soon as it is ended.
#[test]
fn a_gpu_that_hangs() {
    let job = Job::new().set("max_steps", 4).on_gpu();
    let run = job.run("run");
    let server = run.server();
    let worker = worker_on(&job, &run.address(), 0, "hang=400");
    let said = |text: &str| worker.stderr().contains(text).then_some(());
    wait_for("a launch to hang", || said("a launch hangs"));
    worker.signal(Signal::SIGTERM);
    wait_for("the worker to hear that", || said("asked to stop"));
    // So soon after the first one it may be the same request.
    wait_for("the worker to end", || {
        worker.signal(Signal::SIGTERM);
        said("asked again to stop")
    });
    assert_eq!(worker.end().signal, Some(Signal::SIGKILL as i32));
    let worker = run.worker(0, 1);
    server.succeed();
    worker.succeed();
}
