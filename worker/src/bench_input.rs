//! `hw2 bench input`: how fast this machine makes image files into batches.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use hw2_common::config::Config;
use hw2_common::dataset::{Dataset, DatasetError, Image, Split};
use hw2_common::ids::{Assignment, Epoch, GlobalStep, ReplicaId, SampleId};
use hw2_common::job::Job;
use hw2_common::rng::Stream;
use image::codecs::jpeg::JpegEncoder;
use image::{Rgb, RgbImage};
use serde::Serialize;

use crate::data::{DataError, Form, Loader, PREFETCH_BATCHES_MAX};

/// Width and height of the synthetic photos.
const PHOTO: (u32, u32) = (500, 375);
const PHOTO_QUALITY: u8 = 80;
/// Different photos.
const PHOTOS: u32 = 64;
/// Grey levels of a photo's grain.
const NOISE: u32 = 24;

/// What to measure.
#[derive(Clone, Debug)]
pub struct InputBenchOptions {
    /// Gives the recipe, the image size and the batch size.
    pub config: Config,
    /// Images to read; none makes photos in memory.
    pub dataset: Option<Arc<Dataset>>,
    /// Data threads; 0 means one per core.
    pub threads: usize,
    /// Training images to make in each of the two measurements; rounded up to whole batches.
    pub images: u32,
}

/// What was measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct InputBench {
    /// What was read.
    pub source: String,
    /// Mean size of a file.
    pub file_bytes: u64,
    /// Data threads.
    pub threads: usize,
    /// Rows and columns of the finished images.
    pub image_size: usize,
    /// Images a second with every file read, decoded and augmented.
    pub cold_images_per_second: f64,
    /// Images a second with every canonical image in memory.
    pub warm_images_per_second: f64,
    /// Part of the training images that fitted in memory for the warm figure.
    pub cached: f64,
}

/// Why there is no measurement.
#[derive(Debug, thiserror::Error)]
pub enum InputBenchError {
    /// The synthetic photos make no dataset.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// A batch could not be made.
    #[error(transparent)]
    Data(#[from] DataError),
}

/// Measures, with the batches of one replica.
///
/// # Errors
/// An image cannot be read, or none can be decoded.
pub fn bench_input(options: &InputBenchOptions) -> Result<InputBench, InputBenchError> {
    let (dataset, source) = match &options.dataset {
        Some(dataset) => (Arc::clone(dataset), "the dataset".to_owned()),
        None => {
            let (width, height) = PHOTO;
            let kind = format!("{width}x{height} JPEG 4:4:4 of quality {PHOTO_QUALITY}");
            (Arc::new(photos()?), format!("{PHOTOS} synthetic photos, {kind}"))
        }
    };
    let config = Config { replicas: 1, ..options.config.clone() };
    let batch_size = config.batch_size;
    let mut job = Job { config, dataset: dataset.card() };
    let batches = u64::from(options.images.div_ceil(batch_size));
    let batches_per_epoch = u64::from(job.dataset.train.div_ceil(batch_size));

    let warm = Loader::new(&job, Arc::clone(&dataset), options.threads, Form::Finished)?;
    run(&warm, 0..batches_per_epoch)?;
    let warm_seconds = run(&warm, batches_per_epoch..batches_per_epoch + batches)?;

    job.config.cluster.image_cache_mib = 0;
    let cold = Loader::new(&job, Arc::clone(&dataset), options.threads, Form::Finished)?;
    // One batch to start the threads.
    run(&cold, 0..1)?;
    let cold_seconds = run(&cold, 1..1 + batches)?;

    let images = (batches * u64::from(batch_size)) as f64;
    Ok(InputBench {
        source,
        file_bytes: dataset.images(Split::Train).iter().map(Image::bytes).sum::<u64>()
            / u64::from(job.dataset.train),
        threads: warm.threads(),
        image_size: job.config.model.image_size,
        cold_images_per_second: images / cold_seconds,
        warm_images_per_second: images / warm_seconds,
        cached: f64::from(warm.cached_images()) / f64::from(job.dataset.train),
    })
}

/// Makes the batches of `steps`, as many ahead as training may, and tells the seconds it took.
fn run(loader: &Loader, steps: Range<u64>) -> Result<f64, DataError> {
    let at = |step| Assignment { step: GlobalStep(step), replica: ReplicaId(0) };
    let ahead = PREFETCH_BATCHES_MAX as u64;
    let began = Instant::now();
    for step in steps.clone() {
        for next in step..steps.end.min(step + ahead) {
            loader.prefetch(at(next));
        }
        loader.batch(at(step))?;
    }
    Ok(began.elapsed().as_secs_f64())
}

/// Two classes of photos in memory, and a validation set that is not read.
fn photos() -> Result<Dataset, DatasetError> {
    let train =
        (0..PHOTOS).map(|index| (format!("train/{}/{index:03}.jpg", index % 2), photo(index)));
    let val = (0..2).map(|class| (format!("val/{class}/0.jpg"), photo(class)));
    Dataset::from_files("synthetic photos", train.chain(val))
}

/// Slopes, edges and sensor noise: about as many bytes as a photo of its size.
fn photo(index: u32) -> Vec<u8> {
    let (width, height) = PHOTO;
    let noise = Stream::augmentation(0, Epoch(0), SampleId(index));
    let image = RgbImage::from_fn(width, height, |x, y| {
        let slope = (x * (index % 5 + 1) / 12 + y * (index % 3 + 1) / 7) % 128;
        let edge = [70, 20, 20][(x / 40 + y / 30 + index) as usize % 3];
        let grain = noise.word(y * width + x);
        Rgb([0, 8, 16].map(|shift| (slope + edge + (grain >> shift) % NOISE) as u8))
    });
    let mut file = Vec::new();
    JpegEncoder::new_with_quality(&mut file, PHOTO_QUALITY)
        .encode_image(&image)
        .expect("memory takes every byte of an image that the format allows");
    file
}

#[cfg(test)]
mod tests {
    use hw2_common::model::ModelSpec;

    use super::*;

    #[test]
    fn the_bench_says_what_it_did() {
        let mut config = Config { batch_size: 8, ..Config::default() };
        config.model = ModelSpec { image_size: 20, ..ModelSpec::default() };
        let options = InputBenchOptions { config, dataset: None, threads: 2, images: 9 };
        let bench = bench_input(&options).unwrap();
        assert!(
            bench.source.contains("64 synthetic photos, 500x375 JPEG 4:4:4"),
            "{}",
            bench.source
        );
        assert!((30_000..70_000).contains(&bench.file_bytes), "{} bytes", bench.file_bytes);
        assert_eq!((bench.threads, bench.image_size, bench.cached), (2, 20, 1.0));
        assert!(bench.cold_images_per_second > 0.0 && bench.warm_images_per_second > 0.0);
    }
}
