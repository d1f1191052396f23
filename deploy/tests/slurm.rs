//! deploy/slurm/train.sbatch on a real slurmd: four nodes on the loopback of this machine.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::common::{Job, Run, wait_for};
use crate::sbatch::{SCRIPT, digest_alone, long_job, script_arguments};

const TESTBED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/testbeds/slurm");

/// A running Slurm cluster, ended when it is dropped.
struct Cluster {
    state: TempDir,
}

impl Cluster {
    fn up() -> Self {
        // Made first, so that what a failed start has started is ended too.
        let cluster = Self { state: TempDir::with_prefix("hw2-slurm-").unwrap() };
        succeed(Command::new(format!("{TESTBED}/up.sh")).arg(cluster.state.path()));
        cluster
    }

    /// A command of Slurm's, for this cluster.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("SLURM_CONF", self.state.path().join("slurm.conf"));
        command
    }

    /// Submits the script for `run`: three workers on two nodes, each with a GPU.
    fn submit(&self, job: &Job, run: &Run) -> Submitted<'_> {
        let log = run.dir().with_extension("log");
        let built = Path::new(env!("CARGO_BIN_EXE_hw2")).parent().unwrap();
        let mut command = self.command("sbatch");
        command.env("PATH", format!("{}:{}", built.display(), std::env::var("PATH").unwrap()));
        command.args(["--parsable", "--nodes=2", "--ntasks=3", "--gpus-per-task=1"]);
        command.arg("--output").arg(&log).arg(SCRIPT).args(script_arguments(job, run));
        let id = succeed(&mut command).trim().to_owned();
        Submitted { cluster: self, id, log }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let down = Command::new(format!("{TESTBED}/down.sh")).arg(self.state.path()).status();
        if !down.is_ok_and(|status| status.success()) {
            eprintln!("the Slurm cluster in {} may still run", self.state.path().display());
        }
    }
}

/// A Slurm job.
struct Submitted<'a> {
    cluster: &'a Cluster,
    id: String,
    log: PathBuf,
}

impl Submitted<'_> {
    /// The value of `field` in what Slurm knows of the job.
    fn field(&self, field: &str) -> String {
        let shown = succeed(self.cluster.command("scontrol").args(["show", "job", &self.id]));
        let values = shown.split_whitespace().filter_map(|pair| pair.split_once('='));
        let value = values.into_iter().find(|(name, _)| *name == field);
        value.map(|(_, value)| value.to_owned()).expect("a field of every job")
    }

    /// Waits for its end; its state and its exit code.
    fn end(&self) -> (String, String) {
        wait_for("the Slurm job to end", || {
            let state = self.field("JobState");
            let ended = ["COMPLETED", "FAILED", "CANCELLED", "NODE_FAIL"].contains(&state.as_str());
            ended.then(|| (state, self.field("ExitCode")))
        })
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

/// Runs `command`, which must succeed; what it prints.
fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{stderr}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

#[test]
#[ignore = "needs slurm-wlm and munge, and root; .ci/run runs it"]
fn a_job_that_runs_out_of_time_is_requeued_and_ends_with_the_same_checksum() {
    let cluster = Cluster::up();
    let job = long_job();
    let run = job.run("run");
    let submitted = cluster.submit(&job, &run);
    let checkpoint = run.dir().join("checkpoint-00000005.safetensors");
    wait_for("a checkpoint", || checkpoint.exists().then_some(()));
    // As at the end of its time: the script alone is told.
    let mut warning = cluster.command("scancel");
    succeed(warning.args(["--batch", "--signal=USR1", &submitted.id]));
    wait_for("the job to be requeued", || (submitted.field("Restarts") == "1").then_some(()));
    let (_, step) = run.digest();
    assert!(step < digest_alone(&job).1, "it was to be stopped in the middle\n{}", submitted.log());

    assert_eq!(submitted.end(), ("COMPLETED".into(), "0:0".into()), "{}", submitted.log());
    assert_eq!(run.digest(), job.run("alone").digest(), "{}", submitted.log());

    let refused = Job::new().set("batch_size", 0);
    let submitted = cluster.submit(&refused, &refused.run("run"));
    assert_eq!(submitted.end(), ("FAILED".into(), "2:0".into()), "{}", submitted.log());
}
