//! `hw2 bench wire`: what a round of push, commit and pull of all parameters costs, beside plain
//! sockets that carry the same bytes in the same minute.

mod report;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use hw2_common::address::Addresses;
use hw2_common::config::{Config, WireFormat};
use hw2_common::job::{Card, Job};
use hw2_common::lifeline;
use hw2_common::memory;
use hw2_common::model::Block;
use hw2_proto::v1::StatusReply;

use super::raw;
use crate::cluster::{self, Audience, Outcome, Plan, SocketDir};
use crate::local_run::trace_flags;
use crate::output;
use report::{Row, Wire};

/// The original's.
const CLASSES: usize = 65;
const WORKERS_MAX: i64 = 256;
/// Limits of what can be asked for.
const VALUES_MIN: u64 = 1_000_000;
const VALUES_MAX: u64 = 500_000_000;
/// Parts of the rounds in which the cluster is still starting: at least, and at most.
const WARM_UP: (f64, f64) = (0.25, 0.75);

/// Measures a round of push, commit and pull of all parameters, with workers that compute nothing,
/// or do as if
#[derive(Args, Debug)]
pub(crate) struct WireArgs {
    /// Numbers of workers to measure with, each pushing one replica a round
    #[arg(long, value_name = "W,...", value_delimiter = ',', default_value = "1,2")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=WORKERS_MAX))]
    workers: Vec<u16>,

    /// Rounds of each worker, of which the first quarter does not count
    #[arg(long, value_name = "N", default_value_t = 100)]
    #[arg(value_parser = clap::value_parser!(u32).range(8..))]
    rounds: u32,

    /// Where the server listens, with a port that is free; of several, as many addresses separated
    /// by commas [default: Unix sockets]
    #[arg(long, value_name = "ADDRESS,...")]
    listen: Option<Addresses>,

    /// Servers, each with a part of the vectors [default: one, or as many as --listen names]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    #[arg(conflicts_with = "listen")]
    shards: Option<u16>,

    /// How weights and gradients travel
    #[arg(long, value_name = "FORMAT", default_value_t)]
    wire: WireFormat,

    /// Parameters, about so many, most of them in one dense layer [default: the ten-layer
    /// network's]
    #[arg(long, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u64).range(VALUES_MIN..=VALUES_MAX))]
    values: Option<u64>,

    /// Compute for so long in each round, or do as if: what remains of the round beside it?
    #[arg(long, value_name = "MS", default_value_t = 0.0, value_parser = milliseconds)]
    compute: f64,

    /// Write what server and workers do when to a file for Perfetto; of several numbers of workers,
    /// the last one's stays
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,

    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

/// A worker of the bench, in a process of its own.
#[derive(Args, Debug)]
pub(crate) struct WorkerArgs {
    #[arg(long)]
    ps: Addresses,

    /// Folder for the times of its rounds
    #[arg(long)]
    report: PathBuf,

    /// Milliseconds of each round
    #[arg(long, value_parser = milliseconds)]
    compute: f64,
}

fn milliseconds(text: &str) -> Result<f64, String> {
    let is_sensible = |ms: &f64| (0.0..=60_000.0).contains(ms);
    let ms = text.parse().ok().filter(is_sensible);
    ms.ok_or_else(|| "milliseconds are a number from 0 to 60000".to_owned())
}

/// Measures with each number of workers.
pub(crate) fn run(args: &WireArgs) -> anyhow::Result<()> {
    for address in args.listen.iter().flat_map(|listen| listen.all()) {
        if address.to_string().ends_with(":0") {
            bail!("--listen {address}: workers must know the port; name one that is free");
        }
    }
    let job = job(args)?;
    let values = job.layout()?.params.len();
    let measured = args.workers.iter().map(|&workers| {
        let measured = measure(&job, workers, args)?;
        let bytes = args.wire.bytes() * values;
        let raw = raw::round(measured.addresses.coordinator(), workers, args.rounds, bytes);
        let raw = raw.context("cannot measure plain sockets")?;
        Ok(Row::new((workers, args.wire, args.compute), bytes, measured, raw))
    });
    let rows = measured.collect::<anyhow::Result<_>>()?;
    output::report(&Wire { values, rows }, args.json)
}

/// Works for the server and leaves the times of the rounds in a file.
pub(crate) fn work(args: &WorkerArgs) -> anyhow::Result<()> {
    memory::use_huge_pages();
    lifeline::hold().context("cannot watch the parent process")?;
    let computing = Duration::from_secs_f64(args.compute / 1e3);
    let rounds = hw2_worker::bench_wire::drive(&args.ps, computing)?;
    let file = args.report.join(format!("rounds-{}.json", std::process::id()));
    std::fs::write(&file, serde_json::to_string(&rounds)?)
        .with_context(|| format!("cannot write {}", file.display()))
}

/// The ten-layer network, or one with more in its dense layer, trained on nothing: the server reads
/// the card only.
fn job(args: &WireArgs) -> anyhow::Result<Job> {
    let config = Config {
        batch_size: CLASSES as u32,
        wire: args.wire,
        max_steps: args.rounds.into(),
        checkpoint_every: args.rounds.into(),
        ..Config::default()
    };
    let classes = (0..CLASSES).map(|class| format!("class-{class:02}")).collect();
    let fingerprint = hw2_common::hex(&[0; 32]);
    // A replica needs an image.
    let (train, val) = (WORKERS_MAX as u32, CLASSES as u32);
    let mut job = Job { config, dataset: Card { classes, train, val, fingerprint } };
    if let Some(values) = args.values {
        let mut len = |units| {
            set_units(&mut job, units);
            anyhow::Ok(job.layout()?.params.len() as u64)
        };
        let (one, two) = (len(1)?, len(2)?);
        let units = 1 + values.saturating_sub(one) / (two - one);
        set_units(&mut job, units as usize);
    }
    Ok(job)
}

fn set_units(job: &mut Job, wanted: usize) {
    for block in &mut job.config.model.blocks {
        if let Block::Dense { units, .. } = block {
            *units = wanted;
        }
    }
}

/// What a cluster did.
struct Measured {
    /// Where the servers listened.
    addresses: Addresses,
    /// The times of all rounds of all workers, without those of the start.
    rounds: Vec<Duration>,
    server: ServerUse,
}

/// What the server says of its process, while rounds are made.
#[derive(Default)]
struct ServerUse {
    /// The first and the last answer: rounds so far, milliseconds of processor time.
    first: Option<(u64, u64)>,
    last: (u64, u64),
    /// Rounds so far when the first checkpoint was last seen to be missing.
    writing: u64,
    peak_memory_bytes: u64,
}

impl ServerUse {
    /// Processor time of a round; none if there were too few answers to tell.
    fn cpu_ms(&self) -> Option<f64> {
        let ((from, began), (to, ended)) = (self.first?, self.last);
        (to > from).then(|| (ended - began) as f64 / (to - from) as f64)
    }
}

fn measure(job: &Job, workers: u16, args: &WireArgs) -> anyhow::Result<Measured> {
    let dir = SocketDir::new(args.shards.unwrap_or(1).into())?;
    let addresses = args.listen.as_ref().unwrap_or(dir.addresses()).clone();
    let reports = dir.file("reports");
    std::fs::create_dir(&reports)?;
    let mut plan = plan(job, &dir, &addresses, (workers, args.compute), &reports)?;
    plan.server.extend(trace_flags(args.trace.as_deref()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut watch = Watch::default();
    match runtime.block_on(cluster::run(&plan, &mut watch))? {
        Outcome::Finished => {
            let rounds = read_reports(&reports, watch.server.writing)?;
            Ok(Measured { addresses, rounds, server: watch.server })
        }
        Outcome::Interrupted => bail!("interrupted"),
        Outcome::Failed(reason) => bail!("{reason}\n{}", watch.lines.join("\n")),
    }
}

fn plan(
    job: &Job,
    dir: &SocketDir,
    addresses: &Addresses,
    (workers, compute): (u16, f64),
    reports: &Path,
) -> anyhow::Result<Plan> {
    let card = dir.file("card.json");
    job.dataset.write(&card).context("cannot write the dataset card")?;
    let config = Config {
        replicas: workers.into(),
        data: card.display().to_string(),
        run_dir: dir.file("run").display().to_string(),
        ..job.config.clone()
    };
    let config_file = dir.file("config.toml");
    std::fs::write(&config_file, config.to_toml()).context("cannot write the config")?;
    let ps = addresses.to_string();
    let compute = compute.to_string();
    let worker = ["bench", "wire-worker", "--ps", &ps, "--compute", &compute, "--report"];
    let worker = worker.map(OsString::from);
    Ok(Plan {
        addresses: addresses.clone(),
        server: vec!["--config".into(), config_file.into()],
        workers: vec![worker.into_iter().chain([reports.into()]).collect(); workers.into()],
        log_dir: dir.file("logs"),
        grace: Duration::from_secs(20),
    })
}

/// The rounds after those of the start, in which a first checkpoint is written: it still was in
/// round number `writing`.
fn read_reports(dir: &Path, writing: u64) -> anyhow::Result<Vec<Duration>> {
    let mut rounds = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let all: Vec<Duration> = serde_json::from_str(&std::fs::read_to_string(entry?.path())?)?;
        let part = |part: f64| (all.len() as f64 * part) as usize;
        let warm_up = (writing as usize + 1).clamp(part(WARM_UP.0), part(WARM_UP.1));
        rounds.extend_from_slice(&all[warm_up..]);
    }
    Ok(rounds)
}

/// Keeps what the children say, for the case that one fails, and what the server costs.
#[derive(Default)]
struct Watch {
    lines: Vec<String>,
    server: ServerUse,
}

impl Audience for Watch {
    fn child_line(&mut self, child: &str, line: &str) {
        self.lines.push(format!("{child} | {line}"));
    }

    fn decision(&mut self, reason: &str) {
        self.lines.push(reason.to_owned());
    }

    fn status(&mut self, status: &StatusReply) {
        let server = &mut self.server;
        server.peak_memory_bytes = status.peak_memory_bytes;
        if status.last_checkpoint.is_empty() {
            server.writing = status.global_step;
        }
        // Before all workers have joined it waits, and after the last round it writes.
        if (1..status.max_steps).contains(&status.global_step) {
            server.last = (status.global_step, status.cpu_ms);
            server.first.get_or_insert(server.last);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        wire: WireArgs,
    }

    fn values(line: &str) -> usize {
        let args = <Line as clap::Parser>::try_parse_from(line.split(' ')).unwrap().wire;
        job(&args).unwrap().layout().unwrap().params.len()
    }

    #[test]
    fn the_ten_layer_network_is_what_travels_or_one_of_another_size() {
        assert_eq!(values("wire"), 2_958_689);
        for wanted in [3_000_000, 30_000_000, 300_000_000] {
            let found = values(&format!("wire --values {wanted}"));
            assert!(found <= wanted && wanted - found < 10_000, "{found} for {wanted}");
        }
    }

    #[test]
    fn the_start_is_left_out_of_every_report() {
        let dir = tempfile::tempdir().unwrap();
        for worker in ["rounds-1.json", "rounds-2.json"] {
            let rounds = [9, 1, 1, 1].map(Duration::from_secs);
            std::fs::write(dir.path().join(worker), serde_json::to_string(&rounds).unwrap())
                .unwrap();
        }
        for (writing, left) in [(0, 6), (1, 4), (2, 2), (9, 2)] {
            let rounds = read_reports(dir.path(), writing).unwrap();
            assert_eq!(rounds, vec![Duration::from_secs(1); left], "{writing}");
        }
    }
}
