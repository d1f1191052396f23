//! A whole training run on this machine: a server and its workers, progress, and a summary.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use hw2_common::config::Config;
use hw2_server::CONFIG_FILE;
use hw2_worker::device_args::DeviceArgs;

use crate::cluster::{self, Outcome, Plan, SocketDir};
use crate::stage::Stage;
use crate::summary::Summary;

/// Folder of the children's logs in the run's folder.
const LOG_DIR: &str = "logs";
/// Beyond the server's own grace period, so that it is not killed at its last breath.
const GRACE_EXTRA: Duration = Duration::from_secs(5);

/// What to run.
#[derive(Debug)]
pub(crate) struct LocalRun {
    config: Config,
    /// What each worker computes on.
    workers: Vec<DeviceArgs>,
    shards: usize,
    verbose: bool,
    trace: Option<PathBuf>,
}

/// Flags that say what the cluster consists of.
#[derive(Args, Clone, Debug)]
pub(crate) struct ClusterArgs {
    /// Worker processes, which take the GPUs of --gpu in turn [default: one for each]; `replicas`
    /// follows where nothing sets it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: Option<u16>,

    /// Servers, each with a part of the vectors
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    #[arg(default_value_t = 1)]
    shards: u16,

    #[command(flatten)]
    device: DeviceArgs,

    /// Show the whole log of server and workers, not only its warnings
    #[arg(long, short)]
    verbose: bool,

    /// Write what server and workers do when to a file for Perfetto (ui.perfetto.dev)
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
}

impl ClusterArgs {
    /// Number of workers; `default` where neither that nor GPUs are given.
    pub(crate) fn workers_or(&self, default: u16) -> usize {
        match (self.workers, &self.device.gpu) {
            (Some(workers), _) => workers.into(),
            (None, Some(_)) => self.device.each().len(),
            (None, None) => default.into(),
        }
    }

    /// The run of `config` with this many workers.
    ///
    /// # Errors
    /// The device is not there, or a GPU would have no worker.
    pub(crate) fn local_run(&self, config: Config, workers: usize) -> anyhow::Result<LocalRun> {
        let devices = self.device.for_workers(workers)?;
        self.device.check()?;
        Ok(LocalRun {
            config,
            workers: devices,
            shards: self.shards.into(),
            verbose: self.verbose,
            trace: self.trace.clone(),
        })
    }
}

impl LocalRun {
    /// Runs to the end and says how it went. A run that lies in the folder goes on.
    ///
    /// # Errors
    /// The run failed, with the reason. The logs lie in the folder.
    pub(crate) fn run(&self) -> anyhow::Result<Summary> {
        let run_dir = Path::new(&self.config.run_dir);
        let socket = SocketDir::new(self.shards)?;
        let config_file = socket.file(CONFIG_FILE);
        std::fs::write(&config_file, self.config.to_toml())
            .with_context(|| format!("cannot write {}", config_file.display()))?;
        let plan = self.plan(&socket, &config_file);
        let began = Instant::now();
        let mut stage = Stage::new(self.verbose);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let outcome = runtime.block_on(cluster::run(&plan, &mut stage));
        stage.clear();
        let logs = plan.log_dir.display();
        match outcome? {
            Outcome::Failed(reason) => bail!("{reason}; the logs are in {logs}"),
            Outcome::Finished | Outcome::Interrupted => {
                Summary::read(run_dir, self.workers.len(), began.elapsed())
            }
        }
    }

    fn plan(&self, socket: &SocketDir, config_file: &Path) -> Plan {
        let addresses = socket.addresses().clone();
        let ps = addresses.to_string();
        let threads = self.threads().to_string();
        let worker = ["worker", "--lifeline", "--ps", &ps, "--threads", &threads];
        let worker = |device: &DeviceArgs| {
            worker.map(OsString::from).into_iter().chain(device.flags()).collect()
        };
        Plan {
            addresses,
            server: ["--config".into(), config_file.into()]
                .into_iter()
                .chain(trace_flags(self.trace.as_deref()))
                .collect(),
            workers: self.workers.iter().map(worker).collect(),
            log_dir: Path::new(&self.config.run_dir).join(LOG_DIR),
            grace: Duration::from_millis(self.config.cluster.grace_ms) + GRACE_EXTRA,
        }
    }

    /// Compute threads of one worker: as configured, or a fair part of the cores.
    fn threads(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        match self.config.threads {
            0 => (cores / self.workers.len()).max(1),
            threads => threads,
        }
    }
}

/// The flags that have a server write a trace.
pub(crate) fn trace_flags(trace: Option<&Path>) -> impl Iterator<Item = OsString> {
    trace.into_iter().flat_map(|path| ["--trace".into(), path.into()])
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

/// Refuses a folder without a run in it.
///
/// # Errors
/// There is none.
pub(crate) fn refuse_unused(run_dir: &Path) -> anyhow::Result<()> {
    match run_dir.join(CONFIG_FILE).is_file() {
        true => Ok(()),
        false => bail!(
            "{} holds no run to go on with: --out names the folder of one; leave --resume out to \
             begin one there",
            run_dir.display()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_must_be_a_run_to_go_on_with() {
        let dir = tempfile::tempdir().unwrap();
        let message = refuse_unused(dir.path()).unwrap_err().to_string();
        assert!(message.contains(dir.path().to_str().unwrap()), "{message}");
        std::fs::write(dir.path().join(CONFIG_FILE), "").unwrap();
        refuse_unused(dir.path()).unwrap();
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
}
