//! `hw2 bench input`: how fast image files become batches.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use hw2_common::config::Layers;
use hw2_common::dataset::Dataset;
use hw2_worker::bench_input::{InputBench, InputBenchOptions, bench_input};
use serde::Serialize;

use crate::output::{self, Report, count, rate};

/// Measures image files to finished batches: decoding, augmentation, standardisation
#[derive(Args, Debug)]
pub(crate) struct InputArgs {
    /// Config file whose recipe is used
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Dataset to read [default: synthetic photos in memory]
    #[arg(long, value_name = "PATH")]
    data: Option<PathBuf>,

    /// Images to make, once from files and once from the cache
    #[arg(long, value_name = "N", default_value_t = 1024)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    images: u32,

    /// Threads; 0 means one for each core
    #[arg(long, value_name = "N", default_value_t = 0)]
    threads: usize,

    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

/// Measures and prints.
pub(crate) fn run(args: &InputArgs) -> anyhow::Result<()> {
    let config = Layers { file: args.config.clone(), ..Layers::default() }.load()?.config;
    let dataset = args.data.as_deref().map(Dataset::open).transpose()?.map(Arc::new);
    let options =
        InputBenchOptions { config, dataset, threads: args.threads, images: args.images };
    output::report(&Input(bench_input(&options)?), args.json)
}

#[derive(Serialize)]
#[serde(transparent)]
struct Input(InputBench);

impl Report for Input {
    fn text(&self) -> String {
        let InputBench { source, file_bytes, threads, image_size, cached, .. } = &self.0;
        format!(
            "{source}, {} bytes a file, to {image_size}x{image_size}, {threads} threads\n\
             from files  {} images/s\n\
             from cache  {} images/s ({:.0} % of the images cached)",
            count(*file_bytes),
            rate(self.0.cold_images_per_second),
            rate(self.0.warm_images_per_second),
            cached * 100.0
        )
    }
}
