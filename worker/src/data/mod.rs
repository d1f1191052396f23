//! From image files to batches: decode, augment, standardise, in threads of their own.
//!
//! ```text
//! file -> canonical image (8-bit RGB, cached) -> Photo -> training or evaluation image (f32) -> Batch
//! ```
//!
//! A device that finishes photos by itself gets a batch of photos. What a batch holds is a function
//! of the job, the dataset and the batch's name alone: threads, cache and prefetching change when
//! it is ready and nothing else.

mod augment;
mod cache;
mod canonical;
mod loader;
mod source;
mod warp;

use std::io;
use std::sync::Arc;

use hw2_common::config::Images;
use hw2_common::dataset::Split;
use hw2_common::ids::{Epoch, SampleId};
use hw2_common::rng::Stream;
use image::RgbImage;

pub use canonical::{DECODED_BYTES_MAX, DecodeError, SIDE_MAX};
pub use loader::{Batch, Form, Loader, PREFETCH_BATCHES_MAX, Pixels};

use augment::Augmentation;

use crate::photo::Photo;

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
    Ok(finished(&Photo::central(Arc::new(canonical)), size))
}

/// The photo of a training image of one file's bytes, as image `sample` of epoch 0.
///
/// # Errors
/// As [`eval_image`].
pub fn training_photo(
    file: &[u8],
    images: &Images,
    seed: u64,
    sample: u32,
) -> Result<Photo, DecodeError> {
    let canonical = Arc::new(canonical::decode(file, images.short_side)?);
    let stream = Stream::augmentation(seed, Epoch(0), SampleId(sample));
    Ok(augmented(&canonical, &stream, images))
}

/// A canonical image, augmented by the random numbers of `stream`.
fn augmented(canonical: &Arc<RgbImage>, stream: &Stream, images: &Images) -> Photo {
    Augmentation::draw(stream, images, canonical.dimensions()).photo(canonical, stream)
}

fn finished(photo: &Photo, size: usize) -> Vec<f32> {
    let mut image = vec![0.0; size * size * 3];
    photo.finish(size, &mut image);
    image
}

#[cfg(test)]
pub(crate) mod tests;
