//! The tiny job in a folder of its own, and runs of it.

use std::ffi::OsString;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;
use serde::Deserialize;
use tempfile::TempDir;

use super::dataset::write_dataset;
use super::process::{Process, hw2, hw2_command};
use super::status::{Status, wait_for};

/// The tiny job's config file.
pub(crate) const TINY: &str = include_str!("tiny.toml");

/// A dataset and a config. Both go when it is dropped.
pub(crate) struct Job {
    dir: TempDir,
    settings: Vec<String>,
    /// Flags of its workers.
    device: Vec<OsString>,
    /// Whether its servers listen on a port, and not on a socket file.
    tcp: bool,
    /// Servers of each run.
    shards: usize,
}

/// One run of a job: the servers' folder and addresses.
pub(crate) struct Run<'a> {
    job: &'a Job,
    name: String,
    dir: PathBuf,
    /// Steps after which it ends, if not after those of the job.
    until: Option<u64>,
    /// Where its servers listen, the coordinator first.
    addresses: Vec<String>,
}

/// A line of the curve that is an evaluation's.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(crate) struct Evaluation {
    pub(crate) step: u64,
    pub(crate) samples: u32,
    pub(crate) top1: u32,
    pub(crate) top5: u32,
    pub(crate) learning_rate: f64,
}

impl Job {
    pub(crate) fn new() -> Self {
        // A socket's path must be short, and that of the system's folder is.
        let dir = TempDir::with_prefix("hw2-").unwrap();
        write_dataset(&dir.path().join("data"));
        std::fs::write(dir.path().join("job.toml"), TINY).unwrap();
        let device = ["--device", "cpu"].map(OsString::from).to_vec();
        Self { dir, settings: Vec::new(), device, tcp: false, shards: 1 }
    }

    /// Sets a config key in every run that begins from now on.
    pub(crate) fn set(mut self, key: &str, value: impl std::fmt::Display) -> Self {
        self.settings.push(format!("{key}={value}"));
        self
    }

    /// Its workers compute on GPU 0, which is the software GPU.
    pub(crate) fn on_gpu(mut self) -> Self {
        let libraries = hw2_softgpu::libraries().into();
        self.device = vec!["--gpu".into(), "0".into(), "--cuda-lib-dir".into(), libraries];
        self
    }

    /// Its dense layer has more units, so that the vectors are cut into some chunks.
    pub(crate) fn wide(self) -> Self {
        let wide = TINY.replace("units = 16", "units = 512");
        assert_ne!(wide, TINY);
        std::fs::write(self.config(), wide).unwrap();
        self
    }

    /// Its servers listen on ports of this machine.
    pub(crate) fn over_tcp(self) -> Self {
        Self { tcp: true, ..self }
    }

    /// Its runs have so many servers.
    pub(crate) fn on_servers(self, shards: usize) -> Self {
        Self { shards, ..self }
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir().join("data")
    }

    /// What was set, each as KEY=VALUE.
    pub(crate) fn settings(&self) -> &[String] {
        &self.settings
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.dir().join("job.toml")
    }

    /// A run in the folder `name`, which need not exist.
    pub(crate) fn run(&self, name: &str) -> Run<'_> {
        self.run_in(&self.dir().join(name))
    }

    /// A run in any folder.
    pub(crate) fn run_in(&self, dir: &Path) -> Run<'_> {
        let name = dir.file_name().unwrap().to_str().unwrap();
        // Free, and not given to anybody else for a while; held until all are known, so that no two
        // are the same.
        let free = || TcpListener::bind("127.0.0.1:0").unwrap();
        let ports: Vec<TcpListener> = (0..self.shards).map(|_| free()).collect();
        let address = |shard: usize| match self.tcp {
            true => ports[shard].local_addr().unwrap().to_string(),
            false => format!("unix:{}-{shard}.sock", self.dir().join(name).display()),
        };
        let addresses = (0..self.shards).map(address).collect();
        Run { job: self, name: name.into(), dir: dir.to_owned(), until: None, addresses }
    }
}

impl Run<'_> {
    pub(crate) fn dir(&self) -> PathBuf {
        self.dir.clone()
    }

    /// It ends after so many steps.
    pub(crate) fn until(self, steps: u64) -> Self {
        Self { until: Some(steps), ..self }
    }

    /// Where its server listens; of several, the one that decides.
    pub(crate) fn address(&self) -> String {
        self.addresses[0].clone()
    }

    /// Where each of them listens.
    pub(crate) fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// Starts its server, or the first of several, which goes on with the run if there is one.
    pub(crate) fn server(&self) -> Process {
        let mut command = hw2_command(["server", "--listen", &self.addresses[0]]);
        command.arg("--config").arg(self.job.config()).arg("--data").arg(self.job.data());
        command.arg("--run-dir").arg(self.dir());
        command.args(["--shard", &format!("0/{}", self.job.shards)]);
        for setting in &self.job.settings {
            command.args(["--set", setting]);
        }
        if let Some(steps) = self.until {
            command.args(["--set", &format!("max_steps={steps}")]);
        }
        Process::start(&format!("{}-server", self.name), command, self.job.dir())
    }

    /// Starts the follower that has this shard.
    pub(crate) fn follower(&self, shard: usize) -> Process {
        let command = self.follower_command(shard);
        Process::start(&format!("{}-server-{shard}", self.name), command, self.job.dir())
    }

    pub(crate) fn follower_command(&self, shard: usize) -> Command {
        let mut command = hw2_command(["server", "--listen", &self.addresses[shard]]);
        command.args(["--shard", &format!("{shard}/{}", self.job.shards)]);
        command.args(["--coordinator", &self.addresses[0]]);
        command
    }

    /// Starts all of its servers.
    pub(crate) fn servers(&self) -> Vec<Process> {
        let followers = (1..self.job.shards).map(|shard| self.follower(shard));
        std::iter::once(self.server()).chain(followers).collect()
    }

    /// Starts worker `number` with so many compute threads.
    pub(crate) fn worker(&self, number: usize, threads: usize) -> Process {
        let mut command = hw2_command(["worker", "--ps", &self.addresses.join(",")]);
        command.args(&self.job.device);
        command.args(["--threads", &threads.to_string(), "--patience-s", "60"]);
        // Each software GPU does its work in another order.
        command.env("HW2_SOFTGPU", format!("seed={}", number + 1));
        Process::start(&format!("{}-worker-{number}", self.name), command, self.job.dir())
    }

    /// Starts `count` workers of one thread. None works on before all have joined, so that none
    /// comes when the others have done it all.
    pub(crate) fn workers(&self, count: usize) -> Vec<Process> {
        let mut workers: Vec<Process> = Vec::new();
        for number in 0..count {
            let worker = self.worker(number, 1);
            self.wait_until("a worker to join", |status| status.worker(worker.pid()).is_some());
            worker.signal(Signal::SIGSTOP);
            workers.push(worker);
        }
        workers.iter().for_each(|worker| worker.signal(Signal::SIGCONT));
        workers
    }

    /// What its server says; none when there is no answer.
    pub(crate) fn status(&self) -> Option<Status> {
        Status::of(&self.addresses[0])
    }

    /// Waits until the server says what fits.
    pub(crate) fn wait_until(&self, what: &str, mut fits: impl FnMut(&Status) -> bool) -> Status {
        wait_for(what, || self.status().filter(&mut fits))
    }

    /// Digest of its newest checkpoint, and that one's step.
    pub(crate) fn digest(&self) -> (String, u64) {
        #[derive(Deserialize)]
        struct Digest {
            digest: String,
            step: u64,
        }
        let dir = self.dir();
        let ended = hw2(["digest".as_ref(), "--json".as_ref(), dir.as_os_str()]);
        assert!(ended.code == Some(0), "no digest: {ended}");
        let Digest { digest, step } = serde_json::from_str(&ended.stdout).unwrap();
        (digest, step)
    }

    /// The evaluations of its curve.
    pub(crate) fn evaluations(&self) -> Vec<Evaluation> {
        let curve = std::fs::read_to_string(self.dir().join("curve.jsonl")).unwrap();
        let lines =
            curve.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        lines
            .filter(|line| line["kind"] == "evaluation")
            .map(|line| serde_json::from_value(line).unwrap())
            .collect()
    }

    /// How often the learning rate was halved by its evaluations.
    pub(crate) fn halvings(&self) -> u32 {
        let evaluations = self.evaluations();
        let last = evaluations.last().expect("the run was evaluated").learning_rate;
        (evaluations[0].learning_rate / last).log2().round() as u32
    }
}
