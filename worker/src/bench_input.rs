//! `hw2 bench input`: how fast this machine makes image files into batches.

use std::sync::Arc;
use std::time::Instant;

use hw2_common::config::Config;
use hw2_common::dataset::{Dataset, DatasetError, Split};
use hw2_common::ids::{Assignment, GlobalStep, ReplicaId, SampleId};
use hw2_common::job::Job;
use hw2_common::rng::Stream;
use image::codecs::jpeg::JpegEncoder;
use image::{Rgb, RgbImage};
use serde::Serialize;

use crate::data::{DataError, Loader};

/// Width and height of the synthetic photos.
const PHOTO: (u32, u32) = (500, 375);
const PHOTO_QUALITY: u8 = 80;
/// Different photos: as many as a batch, so that the cache holds them all after one.
const PHOTOS: u32 = 128;

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

/// Measures.
///
/// # Errors
/// The dataset cannot be read, or holds no image.
pub fn bench_input(options: &InputBenchOptions) -> Result<InputBench, InputBenchError> {
    let (dataset, source) = match &options.dataset {
        Some(dataset) => (Arc::clone(dataset), "the dataset".to_owned()),
        None => {
            let (width, height) = PHOTO;
            let source = format!("{PHOTOS} synthetic {width}x{height} JPEG, quality {PHOTO_QUALITY}");
            (Arc::new(photos()?), source)
        }
    };
    Ok(todo)
}
