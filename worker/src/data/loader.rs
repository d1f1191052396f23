//! Batches by name, made ahead of time in threads of their own.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam_channel::{Receiver, Sender, bounded};
use hw2_common::dataset::Dataset;
use hw2_common::ids::{Assignment, BlockId};
use hw2_common::job::Job;
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::source::{BatchSource, Made, Work};
use super::{DataError, finished};
use crate::photo::Photo;

/// Batches made ahead; one more drops the oldest.
pub const PREFETCH_BATCHES_MAX: usize = 4;

/// The images of one micro-batch or of one evaluation block.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// Of each image.
    pub pixels: Pixels,
    /// (n), each an index into the dataset's classes.
    pub labels: Vec<u32>,
    /// Paths within the dataset of the images that could not be decoded, each once.
    pub bad_images: Vec<String>,
}

/// What a batch has of its images.
#[derive(Clone, Debug, PartialEq)]
pub enum Pixels {
    /// (n, h, w, 3), standardised.
    Finished(Vec<f32>),
    /// (n), for a device that finishes them.
    Photos(Vec<Photo>),
}

impl Pixels {
    /// Those of several images, all of one form, as one batch.
    pub(super) fn joined(mut images: impl ExactSizeIterator<Item = Self>) -> Self {
        let more = images.len() - 1;
        let mut joined = images.next().expect("a batch holds an image");
        if let Self::Finished(values) = &mut joined {
            values.reserve_exact(more * values.len());
        }
        for image in images {
            match (&mut joined, image) {
                (Self::Finished(values), Self::Finished(image)) => values.extend(image),
                (Self::Photos(photos), Self::Photos(image)) => photos.extend(image),
                _ => unreachable!("a batch is of one form"),
            }
        }
        joined
    }

    /// (n, size, size, 3), standardised.
    pub fn finish(self, size: usize) -> Vec<f32> {
        match self {
            Self::Finished(values) => values,
            Self::Photos(photos) => photos.iter().flat_map(|photo| finished(photo, size)).collect(),
        }
    }
}

/// What training batches are to hold; the images of an evaluation are always finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Images for any device.
    Finished,
    /// Photos for a device that finishes them.
    Photos,
}

/// Makes the batches of a job.
///
/// Bytes that cannot be decoded are replaced by the next image that can: in the epoch's permutation
/// for training, by index for evaluation. The replacement brings its own label.
pub struct Loader {
    source: Arc<BatchSource>,
    pool: ThreadPool,
    /// Oldest first.
    ahead: Mutex<VecDeque<Ahead>>,
}

/// A batch that is being made, and where it arrives.
struct Ahead {
    making: Arc<Making>,
    batch: Receiver<Result<Batch, DataError>>,
}

/// What the threads share of a batch. They hold it weakly: once it is dropped they make no more of
/// it.
struct Making {
    work: Work,
    progress: Mutex<Progress>,
    batch: Sender<Result<Batch, DataError>>,
}

/// The finished images, each in its place.
struct Progress {
    images: Vec<Option<Result<Made, DataError>>>,
    missing: usize,
}

impl Loader {
    /// Starts `threads` threads, or one per core for 0. Canonical images are kept in up to
    /// `cluster.image_cache_mib` of memory, and training images handed over in
    /// `form`. The dataset must be that of the job: joining compares.
    ///
    /// # Errors
    /// The operating system gives no threads.
    pub fn new(
        job: &Job,
        dataset: Arc<Dataset>,
        threads: usize,
        form: Form,
    ) -> Result<Self, DataError> {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let pool = ThreadPoolBuilder::new()
            .num_threads(if threads == 0 { cores() } else { threads })
            .thread_name(|index| format!("data-{index}"))
            .build()?;
        let cache_bytes = job.config.cluster.image_cache_mib << 20;
        let source = Arc::new(BatchSource::new(job.clone(), dataset, cache_bytes, form));
        Ok(Self { source, pool, ahead: Mutex::default() })
    }

    /// Starts to make the batch of `assignment`, if that has not been started.
    pub fn prefetch(&self, assignment: Assignment) {
        self.start_ahead(Work::Train(assignment));
    }

    /// Starts to make the batch of `block`, if that has not been started.
    pub fn prefetch_eval(&self, block: BlockId) {
        self.start_ahead(Work::Eval(block));
    }

    /// The batch of `assignment`: `batch_size` training images.
    ///
    /// # Errors
    /// An image cannot be read, or none can be decoded.
    pub fn batch(&self, assignment: Assignment) -> Result<Batch, DataError> {
        self.finish(Work::Train(assignment))
    }

    /// The same if it has been made already.
    ///
    /// # Errors
    /// As [`Self::batch`].
    pub fn batch_if_ready(&self, assignment: Assignment) -> Result<Option<Batch>, DataError> {
        let work = Work::Train(assignment);
        let mut ahead = lock(&self.ahead);
        let index = ahead.iter().position(|ahead| ahead.making.work == work);
        let ready = index.and_then(|index| Some((index, ahead[index].batch.try_recv().ok()?)));
        let Some((index, batch)) = ready else { return Ok(None) };
        ahead.remove(index);
        batch.map(Some)
    }

    /// The validation images of `block`: `batch_size`, or fewer in the last block.
    ///
    /// # Errors
    /// An image cannot be read, or none can be decoded.
    pub fn eval_block(&self, block: BlockId) -> Result<Batch, DataError> {
        self.finish(Work::Eval(block))
    }

    /// Number of its threads.
    pub fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// Number of training images whose canonical form is in memory.
    pub fn cached_images(&self) -> u32 {
        self.source.cached_images()
    }

    fn start_ahead(&self, work: Work) {
        let mut ahead = lock(&self.ahead);
        if ahead.iter().any(|ahead| ahead.making.work == work) {
            return;
        }
        if ahead.len() == PREFETCH_BATCHES_MAX {
            ahead.pop_front();
        }
        ahead.push_back(self.start(work));
    }

    fn finish(&self, work: Work) -> Result<Batch, DataError> {
        let started = {
            let mut ahead = lock(&self.ahead);
            let index = ahead.iter().position(|ahead| ahead.making.work == work);
            index.and_then(|index| ahead.remove(index))
        };
        let ahead = started.unwrap_or_else(|| self.start(work));
        ahead.batch.recv().expect("`making` holds the sender until it has sent")
    }

    /// Hands the images of a batch to the threads, which take them in the order of handing.
    fn start(&self, work: Work) -> Ahead {
        let len = self.source.batch_len(work);
        assert!(len > 0, "{work:?} lies beyond the dataset");
        let images = std::iter::repeat_with(|| None).take(len as usize).collect();
        let progress = Mutex::new(Progress { images, missing: len as usize });
        let (sender, batch) = bounded(1);
        let making = Arc::new(Making { work, progress, batch: sender });
        for index in 0..len {
            let source = Arc::clone(&self.source);
            let making = Arc::downgrade(&making);
            self.pool.spawn(move || {
                if let Some(making) = making.upgrade() {
                    making.add(&source, index);
                }
            });
        }
        Ahead { making, batch }
    }
}

impl Making {
    /// Makes image `index`, and sends the batch if it was the last one missing.
    fn add(&self, source: &BatchSource, index: u32) {
        let image = source.image(self.work, index);
        let images = {
            let mut progress = lock(&self.progress);
            progress.images[index as usize] = Some(image);
            progress.missing -= 1;
            if progress.missing > 0 {
                return;
            }
            std::mem::take(&mut progress.images)
        };
        // In order, so that of several errors it is always the first one's that is told.
        let images: Result<Vec<Made>, DataError> = images.into_iter().flatten().collect();
        let batch = images.map(|images| source.collate(self.work, images));
        // Nobody receives a batch that was dropped meanwhile.
        drop(self.batch.send(batch));
    }
}

/// A panic in a thread of ours ends the process, so that nothing half-changed is ever seen.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
