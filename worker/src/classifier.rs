//! A trained network, read from a checkpoint: evaluation and prediction without a server.

use std::sync::Arc;

use hw2_common::checkpoint::Checkpoint;
use hw2_common::dataset::Dataset;
use hw2_common::ids::BlockId;
use hw2_common::job::Job;

use crate::data::{self, DataError, Form, Loader};
use crate::device::Choice;
use crate::nn::Engine;
use crate::train::{Tally, rank, softmax};

/// Computes with EMA weights and running statistics.
pub struct Classifier {
    job: Job,
    engine: Engine,
    threads: usize,
}

/// How the images of an evaluation were ranked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ranks {
    /// For each image, how many classes came before its label; none for a non-finite logit.
    pub ranks: Vec<Option<usize>>,
    /// Sum of the cross-entropies, in index order within and over blocks.
    pub loss_sum: f64,
    /// Images that could not be decoded and were replaced.
    pub bad_images: Vec<String>,
}

impl Ranks {
    /// Images whose label is among the first `k`.
    pub fn top(&self, k: usize) -> u32 {
        self.ranks.iter().filter(|rank| rank.is_some_and(|rank| rank < k)).count() as u32
    }
}

impl Classifier {
    /// Loads `checkpoint` onto a device, in the precision of its run if the device has that.
    ///
    /// # Errors
    /// The device is not there, or the checkpoint's job makes no network.
    pub fn new(checkpoint: &Checkpoint, device: &Choice) -> anyhow::Result<Self> {
        let job = checkpoint.job.clone();
        let network = job.network()?;
        let device = device.resolve();
        let precision = device.precision(job.config.precision);
        let batch_size = job.config.batch_size as usize;
        let mut engine = Engine::new(device.open(precision)?, &network, batch_size, precision)?;
        engine.load_params(&checkpoint.state.vectors.ema);
        engine.load_buffers(&checkpoint.state.vectors.buffers);
        Ok(Self { job, engine, threads: device.threads })
    }

    /// Ranks the first `examples` images of `dataset`'s validation set, in the blocks in which
    /// training evaluates; `progress` hears how many are done.
    ///
    /// # Errors
    /// The dataset has other classes, or an image cannot be read.
    pub fn evaluate(
        &mut self,
        dataset: Arc<Dataset>,
        examples: u32,
        progress: &mut dyn FnMut(u32),
    ) -> anyhow::Result<Ranks> {
        let card = dataset.card();
        if card.classes != self.job.dataset.classes {
            anyhow::bail!(
                "the dataset has the classes {:?}, the checkpoint was trained on {:?}: evaluate \
                 on data with the same class folders",
                card.classes,
                self.job.dataset.classes
            );
        }
        let mut job = self.job.clone();
        job.dataset = card;
        let loader = Loader::new(&job, dataset, self.threads, Form::Finished)?;
        let mut ranks = Ranks::default();
        for block in 0..job.eval_blocks() {
            let done = ranks.ranks.len() as u32;
            if done >= examples {
                break;
            }
            let batch = loader.eval_block(BlockId(block))?;
            let labels = &batch.labels[..batch.labels.len().min((examples - done) as usize)];
            let images = batch.pixels.finish(job.config.model.image_size);
            let logits = self.engine.evaluate(&images)?;
            let classes = job.dataset.classes.len();
            let logits = &logits[..labels.len() * classes];
            let ranked = logits.chunks_exact(classes).zip(labels);
            ranks.ranks.extend(ranked.map(|(logits, label)| rank(logits, *label as usize)));
            ranks.loss_sum += Tally::new(logits, labels).loss_sum;
            ranks.bad_images.extend(batch.bad_images);
            progress(ranks.ranks.len() as u32);
        }
        Ok(ranks)
    }

    /// The `k` most probable classes of one image file's bytes, with their probabilities.
    ///
    /// # Errors
    /// The bytes are no image.
    pub fn predict(&mut self, file: &[u8], k: usize) -> anyhow::Result<Vec<(&str, f64)>> {
        let size = self.job.config.model.image_size;
        let image =
            data::eval_image(file, &self.job.config.images, size).map_err(DataError::from)?;
        let probabilities = softmax(&self.engine.evaluate(&image)?);
        let mut order: Vec<usize> = (0..probabilities.len()).collect();
        // Stable: of equal classes the lower one comes first.
        order.sort_by(|a, b| probabilities[*b].total_cmp(&probabilities[*a]));
        let named = |class: usize| (self.job.dataset.classes[class].as_str(), probabilities[class]);
        Ok(order.into_iter().take(k).map(named).collect())
    }
}
