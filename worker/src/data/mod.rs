//! From image files to batches: decode, augment, standardise, in threads of their own.
//!
//! ```text
//! file -> canonical image (8-bit RGB, cached) -> training or evaluation image (f32) -> Batch
//! ```
//!
//! What a batch holds is a function of the job, the dataset and the batch's name alone: threads,
//! cache and prefetching change when it is ready and nothing else.

mod augment;
mod cache;
mod canonical;
mod colour;
mod loader;
mod resize;
mod source;
mod warp;

use std::io;

use hw2_common::config::Images;
use hw2_common::dataset::Split;
use hw2_common::ids::{Epoch, SampleId};
use hw2_common::rng::Stream;
use image::RgbImage;

pub use canonical::{DECODED_BYTES_MAX, DecodeError, SIDE_MAX};
pub use loader::{Batch, Loader, PREFETCH_BATCHES_MAX};

use augment::Augmentation;
use resize::Square;

/// Why a batch could not be made. Bytes that are no image are no such reason: they are replaced.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A file cannot be read, or has changed since the dataset was opened.
    #[error("cannot read image {path}: {source}")]
    Read {
        /// Path within the dataset.
        path: String,
        /// What the operating system says.
        source: io::Error,
    },
    /// There is nothing to replace a bad image with.
    #[error("no {split} image of the dataset can be decoded; the log names the reason for each")]
    NothingDecodable {
        /// The split without a good image.
        split: Split,
    },
    /// The one image asked for is none.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The operating system gives no threads.
    #[error("cannot start the data threads: {0}")]
    Threads(#[from] rayon::ThreadPoolBuildError),
}

/// The evaluation image of one file's bytes: (`size`, `size`, 3).
///
/// # Errors
/// The bytes are not a JPEG or PNG image, or one beyond the limits.
pub fn eval_image(file: &[u8], images: &Images, size: usize) -> Result<Vec<f32>, DecodeError> {
    let canonical = canonical::decode(file, images.short_side)?;
    let mut out = vec![0.0; size * size * 3];
    fill_eval_image(&canonical, size, &mut out);
    Ok(out)
}

/// A training image of one file's bytes: (`size`, `size`, 3), as image `sample` of epoch 0.
///
/// # Errors
/// As [`eval_image`].
pub fn training_image(
    file: &[u8],
    images: &Images,
    seed: u64,
    sample: u32,
    size: usize,
) -> Result<Vec<f32>, DecodeError> {
    let canonical = canonical::decode(file, images.short_side)?;
    let stream = Stream::augmentation(seed, Epoch(0), SampleId(sample));
    let mut out = vec![0.0; size * size * 3];
    fill_training_image(&canonical, &stream, images, size, &mut out);
    Ok(out)
}

/// A canonical image, augmented by the random numbers of `stream`, into `out` (size, size, 3).
fn fill_training_image(
    canonical: &RgbImage,
    stream: &Stream,
    images: &Images,
    size: usize,
    out: &mut [f32],
) {
    let augmentation = Augmentation::draw(stream, images, canonical.dimensions());
    augmentation.apply(canonical, stream, size, out);
}

/// The central square of a canonical image, resized and standardised, into `out` (size, size, 3).
fn fill_eval_image(canonical: &RgbImage, size: usize, out: &mut [f32]) {
    resize::resize(canonical, Square::central(canonical), size, out);
    colour::standardise(out);
}

#[cfg(test)]
mod tests;
