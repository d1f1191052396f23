//! What each batch of a job holds: a function of the batch's name, whoever asks and when.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use hw2_common::dataset::{Dataset, Split};
use hw2_common::ids::{Assignment, BlockId, Epoch, SampleId};
use hw2_common::job::Job;
use hw2_common::rng::{Stream, permutation};
use image::RgbImage;

use super::cache::{Cache, Decoded};
use super::{Batch, DataError, Form, Pixels, augmented, canonical, finished};
use crate::photo::Photo;

/// Permutations kept. A batch reads at most two epochs unless it is larger than the dataset.
const PERMUTATIONS_MAX: usize = 4;

/// A batch's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// The training images of an assignment.
    Train(Assignment),
    /// The validation images of a block.
    Eval(BlockId),
}

/// One image of a batch.
pub(super) struct Made {
    pixels: Pixels,
    label: u32,
    /// Those that came before it in order and cannot be decoded.
    bad: Vec<SampleId>,
}

/// A canonical image that was found for a place in a batch.
struct Found {
    image: Arc<RgbImage>,
    label: u32,
    bad: Vec<SampleId>,
}

/// A job's images.
pub(super) struct BatchSource {
    job: Job,
    dataset: Arc<Dataset>,
    cache: Cache,
    /// Of training images.
    form: Form,
    /// Oldest first.
    permutations: Mutex<VecDeque<(Epoch, Arc<Vec<u32>>)>>,
}

impl BatchSource {
    /// The images of `dataset`, of which up to `cache_bytes` are kept in their canonical form.
    pub(super) fn new(job: Job, dataset: Arc<Dataset>, cache_bytes: u64, form: Form) -> Self {
        let images = |split| dataset.images(split).len();
        let cache = Cache::new(images(Split::Train), images(Split::Val), cache_bytes);
        Self { job, dataset, cache, form, permutations: Mutex::default() }
    }

    /// Number of images in a batch.
    pub(super) fn batch_len(&self, work: Work) -> u32 {
        let card = &self.job.dataset;
        let counts = [Split::Train, Split::Val].map(|split| self.dataset.images(split).len());
        assert_eq!(counts, [card.train as usize, card.val as usize], "joining compares datasets");
        match work {
            Work::Train(_) => self.job.config.batch_size,
            Work::Eval(block) => self.job.eval_range(block).len() as u32,
        }
    }

    /// Number of training images whose canonical form is in memory.
    pub(super) fn cached_images(&self) -> u32 {
        self.cache.good_images(Split::Train)
    }

    /// Image `index` of a batch.
    pub(super) fn image(&self, work: Work, index: u32) -> Result<Made, DataError> {
        let (photo, Found { label, bad, .. }) = match work {
            Work::Train(assignment) => {
                let (epoch, place) = self.job.position(assignment, index);
                self.training_photo(epoch, place as usize)?
            }
            Work::Eval(block) => self.evaluation_photo(self.job.eval_range(block).start + index)?,
        };
        let pixels = match (work, self.form) {
            (Work::Train(_), Form::Photos) => Pixels::Photos(vec![photo]),
            _ => Pixels::Finished(finished(&photo, self.job.config.model.image_size)),
        };
        Ok(Made { pixels, label, bad })
    }

    /// Puts the images of a batch, in order, together.
    pub(super) fn collate(&self, work: Work, images: Vec<Made>) -> Batch {
        let split = match work {
            Work::Train(_) => Split::Train,
            Work::Eval(_) => Split::Val,
        };
        let mut bad_images: Vec<String> = Vec::new();
        for sample in images.iter().flat_map(|image| &image.bad) {
            let path = &self.dataset.images(split)[sample.0 as usize].path;
            if !bad_images.contains(path) {
                bad_images.push(path.clone());
            }
        }
        let labels = images.iter().map(|image| image.label).collect();
        let pixels = Pixels::joined(images.into_iter().map(|image| image.pixels));
        Batch { pixels, labels, bad_images }
    }

    /// The image at `place` in the order of `epoch`. A replacement is augmented with the random
    /// numbers of the image that it replaces, so that it is not seen twice alike.
    fn training_photo(&self, epoch: Epoch, place: usize) -> Result<(Photo, Found), DataError> {
        let order = self.permutation(epoch);
        let from_place = order[place..].iter().chain(&order[..place]);
        let found =
            self.first_decodable(Split::Train, from_place.map(|&sample| SampleId(sample)))?;
        let config = &self.job.config;
        let stream = Stream::augmentation(config.seed, epoch, SampleId(order[place]));
        Ok((augmented(&found.image, &stream, &config.images), found))
    }

    /// Image `index` of the validation set.
    fn evaluation_photo(&self, index: u32) -> Result<(Photo, Found), DataError> {
        let from_index = (index..self.job.dataset.val).chain(0..index);
        let found = self.first_decodable(Split::Val, from_index.map(SampleId))?;
        Ok((Photo::central(Arc::clone(&found.image)), found))
    }

    fn first_decodable(
        &self,
        split: Split,
        order: impl Iterator<Item = SampleId>,
    ) -> Result<Found, DataError> {
        let mut bad = Vec::new();
        for sample in order {
            match self.decoded(split, sample)? {
                Decoded::Good(image) => {
                    let label = self.dataset.images(split)[sample.0 as usize].label;
                    return Ok(Found { image, label, bad });
                }
                Decoded::Bad => bad.push(sample),
            }
        }
        Err(DataError::NothingDecodable { split })
    }

    fn decoded(&self, split: Split, sample: SampleId) -> Result<Decoded, DataError> {
        if let Some(decoded) = self.cache.get(split, sample) {
            return Ok(decoded);
        }
        let path = &self.dataset.images(split)[sample.0 as usize].path;
        let file = self.dataset.read(split, sample);
        let file = file.map_err(|source| DataError::Read { path: path.clone(), source })?;
        let (decoded, reason) = match canonical::decode(&file, self.job.config.images.short_side) {
            Ok(image) => (Decoded::Good(Arc::new(image)), None),
            Err(reason) => (Decoded::Bad, Some(reason)),
        };
        let is_news = self.cache.keep(split, sample, &decoded);
        if let (Some(reason), true) = (reason, is_news) {
            let reason = reason.to_string();
            let reason = reason.trim_end();
            tracing::warn!(image = path, reason, "replaced an image that cannot be decoded");
        }
        Ok(decoded)
    }

    fn permutation(&self, epoch: Epoch) -> Arc<Vec<u32>> {
        // Locked while it is made, so that the other threads wait for it and do not make it too.
        let mut kept = self.permutations.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, order)) = kept.iter().find(|(other, _)| *other == epoch) {
            return Arc::clone(order);
        }
        let stream = Stream::permutation(self.job.config.seed, epoch);
        let order = Arc::new(permutation(&stream, self.job.dataset.train));
        if kept.len() == PERMUTATIONS_MAX {
            kept.pop_front();
        }
        kept.push_back((epoch, Arc::clone(&order)));
        order
    }
}
