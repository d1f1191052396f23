//! What deploy/slurm/train.sbatch does, with stand-ins for Slurm's own commands and the real `hw2`.
//! `slurm.rs` submits it to a real slurmd.

use std::fs::Permissions;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};

use nix::sys::signal::Signal;

use crate::common::{Job, Process, Run, Status, wait_for};

/// The script under test.
pub(crate) const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/slurm/train.sbatch");

/// Steps that take the script long enough to be interrupted.
const STEPS: u64 = 150;

/// The command, once per task; on SIGTERM it kills the tasks, as the real one does.
const SRUN: &str = r#"#!/usr/bin/env bash
while [[ $1 == -* ]]; do shift; done
for task in $(seq "$SLURM_NTASKS"); do "$@" & tasks+=($!); done
trap 'kill -KILL "${tasks[@]}"' TERM
status=0
for task in "${tasks[@]}"; do
  code=0
  wait "$task" || code=$?
  [ "$code" -le "$status" ] || status=$code
done
exit "$status"
"#;

/// Knows one node, and notes down what is requeued.
const SCONTROL: &str = r#"#!/usr/bin/env bash
case $1 in
  show) echo "NodeName=$3 Arch=x86_64 NodeAddr=127.0.0.1 NodeHostName=elsewhere" ;;
  requeue) echo "requeued job $2" >&2 ;;
esac
"#;

/// A job whose rate halves as long as it runs, and that never stops early. Its batches are so large
/// that it takes many times the second within which the script sees a signal.
pub(crate) fn long_job() -> Job {
    Job::new().set("max_steps", STEPS).set("stop_patience", 1_000).set("batch_size", 256)
}

/// The digest of `job` when one worker does it alone.
pub(crate) fn digest_alone(job: &Job) -> (String, u64) {
    let run = job.run("alone");
    let (server, worker) = (run.server(), run.worker(0, 1));
    server.succeed();
    worker.succeed();
    run.digest()
}

/// The arguments of the script for `run`.
pub(crate) fn script_arguments(job: &Job, run: &Run) -> Vec<String> {
    let mut arguments = vec![
        job.config().display().to_string(),
        run.dir().display().to_string(),
        format!("--data={}", job.data().display()),
    ];
    arguments.extend(job.settings().iter().map(|setting| format!("--set={setting}")));
    arguments
}

/// A Slurm job of two tasks.
struct Batch<'a> {
    job: &'a Job,
    run: Run<'a>,
    /// From which the script makes its port.
    id: u16,
}

impl<'a> Batch<'a> {
    fn new(job: &'a Job) -> Self {
        for (name, text) in [("srun", SRUN), ("scontrol", SCONTROL)] {
            write_program(&job.dir().join("bin").join(name), text);
        }
        // Each job of this process has its own, for it needs the port again when it is requeued.
        static TAKEN: AtomicU16 = AtomicU16::new(0);
        let free = |id: &u16| TcpListener::bind(("0.0.0.0", 20_000 + id)).is_ok();
        let first = (std::process::id() % 9_000) as u16;
        let ids = std::iter::repeat_with(|| first + TAKEN.fetch_add(1, Ordering::Relaxed));
        let id = ids.take(900).find(free).expect("a free port");
        Self { job, run: job.run("run"), id }
    }

    fn start(&self, name: &str) -> Process {
        let mut command = Command::new("bash");
        command.arg(SCRIPT).args(script_arguments(self.job, &self.run));
        let built = Path::new(env!("CARGO_BIN_EXE_hw2")).parent().unwrap();
        let path = std::env::var("PATH").unwrap();
        let path = format!("{}/bin:{}:{path}", self.job.dir().display(), built.display());
        command.env("PATH", path).env("SLURMD_NODENAME", "n1").env("SLURM_NTASKS", "2");
        command.env("SLURM_JOB_ID", self.id.to_string());
        Process::start(name, command, self.job.dir())
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", 20_000 + self.id)
    }

    fn wait_until(&self, what: &str, mut fits: impl FnMut(&Status) -> bool) {
        wait_for(what, || Status::of(&self.address()).filter(&mut fits));
    }
}

fn write_program(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn out_of_time_it_drains_and_requeues_itself_and_then_goes_on_to_the_same_end() {
    let job = long_job();
    let batch = Batch::new(&job);
    let script = batch.start("first");
    batch.wait_until("two workers at work", |status| {
        status.workers.iter().filter(|worker| worker.contributions > 0).count() == 2
    });
    script.signal(Signal::SIGUSR1);
    let ended = script.succeed();
    assert!(ended.stderr.contains(&format!("requeued job {}", batch.id)), "{ended}");
    let (_, step) = batch.run.digest();
    assert!((1..STEPS).contains(&step), "a checkpoint in the middle of the run, not {step}");

    let ended = batch.start("second").succeed();
    assert!(!ended.stderr.contains("requeued"), "{ended}");
    assert_eq!(batch.run.digest(), digest_alone(&job));
}

#[test]
fn a_config_that_means_nothing_is_the_jobs_exit_code() {
    let job = Job::new().set("batch_size", 0);
    let ended = Batch::new(&job).start("script").end();
    assert_eq!(ended.code, Some(2), "{ended}");
    assert!(ended.stderr.contains("batch_size = 0"), "{ended}");
}

#[test]
fn when_every_worker_fails_their_exit_code_is_the_jobs_and_the_server_ends() {
    let job = long_job();
    let batch = Batch::new(&job);
    write_program(&job.dir().join("bin/srun"), "#!/usr/bin/env bash\nexit 7\n");
    let ended = batch.start("script").end();
    assert_eq!(ended.code, Some(7), "{ended}");
    assert!(!ended.stderr.contains("requeued"), "{ended}");
}

#[test]
fn when_every_worker_leaves_in_good_order_the_job_is_requeued() {
    let job = long_job();
    let batch = Batch::new(&job);
    write_program(&job.dir().join("bin/srun"), "#!/usr/bin/env bash\nexit 0\n");
    let ended = batch.start("script").succeed();
    assert!(ended.stderr.contains("requeued"), "{ended}");
}

#[test]
fn without_its_arguments_it_says_how_it_is_used() {
    let job = Job::new();
    let mut command = Command::new("bash");
    command.args([SCRIPT, "job.toml"]);
    let ended = Process::start("script", command, job.dir()).end();
    assert_eq!(ended.code, Some(2));
    assert!(ended.stderr.contains("usage: sbatch"), "{ended}");
}
