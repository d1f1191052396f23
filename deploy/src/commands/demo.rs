//! `hw2 demo`: from nothing to a trained network, on data that this program brings along.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use crate::job_args::{JobArgs, load_for};
use crate::local_run::{ClusterArgs, refuse_used};
use crate::output;

/// A balanced subset of Fashion-MNIST; `demo/make_fashion_subset.py` made it.
const DATA: &[u8] = include_bytes!("../../demo/fashion-subset.tar.gz");
const DATA_FILE: &str = "fashion-subset.tar.gz";
const CONFIG: &str = include_str!("../../configs/demo.toml");
const OUT: &str = "hw2-demo";

/// Trains on bundled data, 2,500 images of clothing in 10 classes: a few minutes on 2 cores
#[derive(Args, Debug)]
pub(crate) struct DemoArgs {
    #[command(flatten)]
    cluster: ClusterArgs,

    /// Folder for data and checkpoints [default: hw2-demo, or hw2-demo-2 and so on]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// Logical slices of the global batch
    #[arg(long, value_name = "N")]
    replicas: Option<String>,

    /// Steps at which training ends
    #[arg(long, value_name = "N")]
    steps: Option<String>,

    /// Of every random number
    #[arg(long, value_name = "N")]
    seed: Option<String>,

    /// Compute threads of one CPU worker
    #[arg(long, value_name = "N")]
    threads: Option<String>,

    /// Print the summary as one line of JSON
    #[arg(long)]
    json: bool,
}

/// Writes the data, trains on it and prints what came of it.
pub(crate) fn run(args: &DemoArgs) -> anyhow::Result<ExitCode> {
    let workers = args.cluster.workers_or(2);
    let out = match &args.out {
        Some(out) => out.clone(),
        None => free_folder(OUT),
    };
    refuse_used(&out)?;
    let config = tempfile::NamedTempFile::new().context("cannot make a temporary file")?;
    std::fs::write(&config, CONFIG).context("cannot write a temporary file")?;
    let job = JobArgs {
        config: Some(config.path().to_owned()),
        data: Some(out.join(DATA_FILE).display().to_string()),
        out: Some(out.display().to_string()),
        replicas: args.replicas.clone(),
        steps: args.steps.clone(),
        seed: args.seed.clone(),
        threads: args.threads.clone(),
        ..JobArgs::default()
    };
    let (resolved, _) = load_for(workers, job.layers())?;
    write_data(&out)?;
    output::note(&format!(
        "Fashion-MNIST, 2,500 training and 500 validation images: 1 server, {workers} workers"
    ));
    let summary = args.cluster.local_run(resolved.config, workers)?.run()?;
    output::report(&summary, args.json)?;
    if !args.json {
        let program = output::program();
        output::line(&format!(
            "your own:  {program} split PHOTOS data && {program} train --data data --workers 2"
        ))?;
    }
    Ok(summary.exit_code())
}

/// The folder `name`, or the first of `name`-2, `name`-3 and so on that holds no run.
fn free_folder(name: &str) -> PathBuf {
    let numbered = (2..).map(|number| format!("{name}-{number}"));
    let mut names = std::iter::once(name.to_owned()).chain(numbered).map(PathBuf::from);
    names.find(|path| refuse_used(path).is_ok()).expect("there is no end of numbers")
}

fn write_data(out: &Path) -> anyhow::Result<()> {
    let data = out.join(DATA_FILE);
    std::fs::create_dir_all(out)
        .and_then(|()| std::fs::write(&data, DATA))
        .with_context(|| format!("cannot write {}", data.display()))
}

#[cfg(test)]
mod tests {
    use hw2_common::dataset::Dataset;

    use super::*;

    #[test]
    fn the_bundled_data_is_what_the_help_says() {
        let dir = tempfile::tempdir().unwrap();
        write_data(dir.path()).unwrap();
        let dataset = Dataset::open(&dir.path().join(DATA_FILE)).unwrap();
        let card = dataset.card();
        assert_eq!((card.classes.len(), card.train, card.val), (10, 2500, 500));
    }

    #[test]
    fn a_used_folder_gets_a_neighbour() {
        let dir = tempfile::tempdir().unwrap();
        let name = dir.path().join("hw2-demo").display().to_string();
        assert_eq!(free_folder(&name), PathBuf::from(&name));
        write_data(Path::new(&name)).unwrap();
        assert_eq!(free_folder(&name), PathBuf::from(format!("{name}-2")));
    }
}
