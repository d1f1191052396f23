//! `precision`: a run key that changes the bits, and that a device has or has not.

use crate::common::{Ended, Job, Process, hw2_command};

fn job(precision: &str) -> Job {
    Job::new().set("max_steps", 4).set("checkpoint_every", 2).set("precision", precision).on_gpu()
}

/// Of the last checkpoint, after so many workers have made it.
fn digest(precision: &str, workers: usize) -> String {
    let job = job(precision);
    let run = job.run("run");
    let server = run.server();
    let workers = run.workers(workers);
    server.succeed();
    workers.into_iter().for_each(|worker| drop(worker.succeed()));
    run.digest().0
}

#[test]
fn each_precision_gives_one_checksum_of_its_own() {
    let digests = ["fp32", "tf32", "bf16"].map(|precision| digest(precision, 1));
    assert!(digests[0] != digests[1] && digests[1] != digests[2] && digests[0] != digests[2]);
    assert_eq!(digest("bf16", 3), digests[2]);
}

fn refused(flags: &[&str], settings: &str) -> Ended {
    let job = job("bf16");
    let run = job.run("run");
    let server = run.server();
    let mut command = hw2_command(["worker", "--ps", &run.address()]);
    command.args(flags).arg("--cuda-lib-dir").arg(hw2_softgpu::libraries());
    command.env("HW2_SOFTGPU", settings);
    let ended = Process::start("worker", command, job.dir()).end();
    server.signal(nix::sys::signal::Signal::SIGTERM);
    server.succeed();
    ended
}

#[test]
fn a_device_without_it_does_not_join() {
    let cpu = refused(&["--device", "cpu"], "");
    assert_eq!(cpu.code, Some(1), "{cpu}");
    assert!(cpu.stderr.contains("fp32 and not in bf16"), "{cpu}");
    let old = refused(&["--gpu", "0"], "cc=3.7");
    assert_eq!(old.code, Some(1), "{old}");
    for part in ["GPU 0", "compute capability 3.7", "bf16 needs 8.0", "precision = \"fp32\""] {
        assert!(old.stderr.contains(part), "{part}: {old}");
    }
}
