//! A whole training run on this machine: a server and its workers, progress, and a summary.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use hw2_common::config::Config;
use hw2_proto::v1::StatusReply;
use hw2_worker::device::Choice;

use crate::cluster::{self, Audience, Outcome, Plan, SocketDir};
use crate::output::{Display, Snapshot};
use crate::summary::Summary;

/// Folder of the children's logs in the run's folder.
const LOG_DIR: &str = "logs";

/// Under which name the server keeps the run's config in its folder.
pub(crate) const CONFIG_FILE: &str = "config.toml";
/// Beyond the server's own grace period, so that it is not killed at its last breath.
const GRACE_EXTRA: Duration = Duration::from_secs(5);

/// What to run.
#[derive(Debug)]
pub(crate) struct LocalRun {
    config: Config,
    workers: usize,
    device: Choice,
    verbose: bool,
}

/// Flags that say what the cluster consists of.
#[derive(Args, Clone, Debug)]
pub(crate) struct ClusterArgs {
    /// Worker processes
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: Option<u16>,

    /// What each computes on
    #[arg(long, default_value = "auto", value_name = "auto|cpu")]
    device: Choice,

    /// Show the whole log of server and workers, not only its warnings
    #[arg(long, short)]
    verbose: bool,
}

impl ClusterArgs {
    /// Number of workers.
    pub(crate) fn workers_or(&self, default: u16) -> usize {
        self.workers.unwrap_or(default).into()
    }

    /// The run of `config` with this many workers.
    pub(crate) fn local_run(&self, config: Config, workers: usize) -> LocalRun {
        LocalRun { config, workers, device: self.device, verbose: self.verbose }
    }
}

impl LocalRun {
    /// Runs to the end and says how it went. A run that lies in the folder goes on.
    ///
    /// # Errors
    /// The run failed, with the reason. The logs lie in the folder.
    pub(crate) fn run(&self) -> anyhow::Result<Summary> {
        let run_dir = Path::new(&self.config.run_dir);
        let socket = SocketDir::new()?;
        let config_file = socket.file(CONFIG_FILE);
        std::fs::write(&config_file, self.config.to_toml())
            .with_context(|| format!("cannot write {}", config_file.display()))?;
        let plan = self.plan(&socket, config_file)?;
        let began = Instant::now();
        let mut stage = Stage { display: Display::new(), verbose: self.verbose, first: None };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let outcome = runtime.block_on(cluster::run(&plan, &mut stage));
        stage.display.clear();
        let logs = plan.log_dir.display();
        match outcome? {
            Outcome::Failed(reason) => bail!("{reason}; the logs are in {logs}"),
            outcome => Summary::read(run_dir, outcome == Outcome::Interrupted, began.elapsed()),
        }
    }

    fn plan(&self, socket: &SocketDir, config_file: PathBuf) -> anyhow::Result<Plan> {
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let address = socket.address().clone();
        let server_address = address.to_string();
        let server_program = program.clone();
        let server = move || {
            let mut command = child_command(&server_program, "server", std::env::vars_os());
            command.arg("--config").arg(&config_file).args(["--listen", &server_address]);
            command
        };
        let worker_address = address.to_string();
        let device = self.device.to_string();
        let threads = self.threads().to_string();
        let worker = move || {
            let mut command = child_command(&program, "worker", std::env::vars_os());
            command.args(["--ps", &worker_address, "--device", &device, "--threads", &threads]);
            command
        };
        Ok(Plan {
            address,
            server: Box::new(server),
            worker: Box::new(worker),
            workers: self.workers,
            log_dir: Path::new(&self.config.run_dir).join(LOG_DIR),
            grace: Duration::from_millis(self.config.cluster.grace_ms) + GRACE_EXTRA,
        })
    }

    /// Compute threads of one worker: as configured, or a fair part of the cores.
    fn threads(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        match self.config.threads {
            0 => (cores / self.workers).max(1),
            threads => threads,
        }
    }
}

/// This program as another process, which reads no config from its `environment`: its file and flags
/// say all there is.
fn child_command(
    program: &Path,
    role: &str,
    environment: impl Iterator<Item = (OsString, OsString)>,
) -> Command {
    let mut command = Command::new(program);
    command.args([role, "--lifeline"]);
    for (name, _) in environment.filter(|(name, _)| name.to_string_lossy().starts_with("HW2_")) {
        command.env_remove(name);
    }
    command
}

/// Refuses a folder that holds anything but the logs of a run that never began.
///
/// # Errors
/// It does, or it cannot be read.
pub(crate) fn refuse_used(run_dir: &Path) -> anyhow::Result<()> {
    let entries = match std::fs::read_dir(run_dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).context(format!("cannot read {}", run_dir.display())),
    };
    let mut names = entries.filter_map(|entry| Some(entry.ok()?.file_name()));
    match names.find(|name| name != LOG_DIR) {
        None => Ok(()),
        Some(name) => bail!(
            "the run folder {} is not empty (it holds {}): --resume goes on with the run in it, \
             --out names another folder",
            run_dir.display(),
            name.display()
        ),
    }
}

/// Shows the cluster to the user.
struct Stage {
    display: Display,
    verbose: bool,
    /// When the first answer came, and the step it told of.
    first: Option<(Instant, u64)>,
}

impl Audience for Stage {
    fn child_line(&mut self, child: &str, line: &str) {
        if self.verbose || !is_chatter(line) {
            self.display.log(&format!("{child} | {line}"));
        }
    }

    fn decision(&mut self, reason: &str) {
        self.display.log(reason);
    }

    fn status(&mut self, status: &StatusReply) {
        let (since, first_step) =
            *self.first.get_or_insert_with(|| (Instant::now(), status.global_step));
        self.display.show(&snapshot(status, first_step, since.elapsed()));
    }
}

/// Whether a line of a child's log tells of nothing out of the ordinary: `TIME LEVEL MESSAGE`.
fn is_chatter(line: &str) -> bool {
    let mut words = line.split_whitespace();
    let is_time = |word: &str| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('T');
    words.next().is_some_and(is_time) && matches!(words.next(), Some("INFO" | "DEBUG" | "TRACE"))
}

/// What `status` shows, given that `first_step` was the step `elapsed` ago.
fn snapshot(status: &StatusReply, first_step: u64, elapsed: Duration) -> Snapshot {
    let done = status.global_step.saturating_sub(first_step);
    let left = status.max_steps.saturating_sub(status.global_step);
    let time_left = (done > 0).then(|| elapsed.mul_f64(left as f64 / done as f64));
    let evaluation = status.last_evaluation.as_ref();
    Snapshot {
        step: status.global_step,
        max_steps: status.max_steps,
        phase: (status.phase != "training").then(|| status.phase.clone()),
        loss: (done > 0).then_some(status.loss),
        train_top1: (done > 0).then_some(status.train_top1),
        val_top1: evaluation
            .map(|found| (found.step, f64::from(found.top1) / f64::from(found.samples.max(1)))),
        images_per_second: status.images_per_second,
        learning_rate: status.learning_rate,
        time_left,
    }
}

#[cfg(test)]
mod tests {
    use hw2_proto::v1::EvaluationStatus;

    use super::*;

    fn status(step: u64) -> StatusReply {
        StatusReply {
            global_step: step,
            max_steps: 900,
            phase: "training".into(),
            loss: 0.5,
            train_top1: 0.75,
            learning_rate: 1e-3,
            images_per_second: 400.0,
            ..StatusReply::default()
        }
    }

    #[test]
    fn nothing_is_said_of_a_step_before_the_first() {
        let snapshot = snapshot(&status(300), 300, Duration::from_secs(9));
        assert_eq!((snapshot.loss, snapshot.train_top1, snapshot.time_left), (None, None, None));
        assert_eq!((snapshot.step, snapshot.val_top1, snapshot.phase), (300, None, None));
    }

    #[test]
    fn the_time_left_follows_from_the_steps_of_this_run() {
        let evaluation =
            EvaluationStatus { step: 300, samples: 500, top1: 400, top5: 490, loss: 0.6 };
        let status = StatusReply {
            last_evaluation: Some(evaluation),
            phase: "evaluating".into(),
            ..status(400)
        };
        let snapshot = snapshot(&status, 300, Duration::from_secs(20));
        assert_eq!(snapshot.time_left, Some(Duration::from_secs(100)));
        assert_eq!(snapshot.val_top1, Some((300, 0.8)));
        assert_eq!(snapshot.phase.as_deref(), Some("evaluating"));
        assert_eq!((snapshot.loss, snapshot.train_top1), (Some(0.5), Some(0.75)));
    }

    #[test]
    fn only_ordinary_log_lines_are_chatter() {
        let time = "2026-11-24T04:58:40.622556Z";
        assert!(is_chatter(&format!("{time}  INFO listening on unix:/tmp/ps.sock")));
        assert!(is_chatter(&format!("{time} DEBUG INFO")));
        for line in [&format!("{time}  WARN worker 3 is lost"), "error: no INFO", "2 INFO", ""] {
            assert!(!is_chatter(line), "{line}");
        }
    }

    #[test]
    fn a_folder_with_a_run_is_refused_and_one_with_logs_only_is_not() {
        let dir = tempfile::tempdir().unwrap();
        refuse_used(&dir.path().join("new")).unwrap();
        refuse_used(dir.path()).unwrap();
        std::fs::create_dir(dir.path().join(LOG_DIR)).unwrap();
        refuse_used(dir.path()).unwrap();
        std::fs::write(dir.path().join("curve.jsonl"), "").unwrap();
        let message = refuse_used(dir.path()).unwrap_err().to_string();
        for part in ["curve.jsonl", "--resume", "--out", dir.path().to_str().unwrap()] {
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn children_read_no_config_from_the_environment() {
        let environment = ["PATH", "HW2_SEED"].map(|name| (name.into(), "1".into()));
        let command = child_command(Path::new("hw2"), "server", environment.into_iter());
        assert_eq!(command.get_args().collect::<Vec<_>>(), ["server", "--lifeline"]);
        let changes: Vec<_> = command.get_envs().collect();
        assert_eq!(changes, [("HW2_SEED".as_ref(), None)]);
    }
}
