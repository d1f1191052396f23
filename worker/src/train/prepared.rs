//! What a worker must have before it can join: the data, the network on its device, its credentials.

use std::sync::Arc;

use anyhow::Context;
use hw2_common::dataset::Dataset;
use hw2_common::ids::{Assignment, BlockId};
use hw2_common::job::Job;
use hw2_common::layout::ParamLayout;

use super::Tally;
use crate::args::WorkerArgs;
use crate::data::{Batch, DataError, Form, Loader, Pixels};
use crate::device::{DeviceError, DropoutCoordinates};
use crate::nn::{Engine, Made, StepOutcome};
use crate::numeric_kind::numeric_kind;
use crate::ps::{Contribution, Credentials, Destination, Pull, Push, StepResult, Vector};

/// Everything that depends on the job alone, so that it survives a new term of the server.
pub(super) struct Prepared {
    /// The job it is for.
    pub(super) job: Job,
    /// Layout of the job's network.
    pub(super) layout: ParamLayout,
    /// What [`crate::ps::Client::join`] shows.
    pub(super) credentials: Credentials,
    engine: Engine,
    loader: Loader,
    staged: Option<Staged>,
    /// The last chunk that arrived: on the wire it has any alignment.
    aligned: Vec<f32>,
}

/// The batch that the engine has for its next training step.
struct Staged {
    assignment: Assignment,
    samples: u32,
    bad_images: Vec<String>,
}

/// Why an assignment or a block could not be computed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ComputeError {
    /// Its images could not be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The device failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

impl Prepared {
    /// Opens the dataset, builds the network and computes the credentials.
    ///
    /// # Errors
    /// The dataset or the device is not there, or the job makes no network.
    pub(super) fn new(job: Job, args: &WorkerArgs) -> anyhow::Result<Self> {
        let network = job.network()?;
        let layout = ParamLayout::new(&network);
        let path = args.data.clone().unwrap_or_else(|| job.config.data.clone().into());
        let dataset = Dataset::open(&path).with_context(|| {
            "the worker cannot read the job's dataset where the server's config has it (--data \
                 names another place)"
        })?;
        let threads = args.threads.unwrap_or(job.config.threads);
        let batch_size = job.config.batch_size as usize;
        let device = args.device.choice(threads)?.resolve();
        let precision = job.config.precision;
        let engine = Engine::new(device.open(precision)?, &network, batch_size, precision);
        let credentials = Credentials {
            layout_fingerprint: layout.fingerprint(),
            config_fingerprint: job.config.fingerprint(),
            dataset_fingerprint: dataset.card().fingerprint,
            numeric_kind: numeric_kind(&device, precision)?,
            label: format!("{} {}", process_label(), engine.describe()),
        };
        let form = if engine.finishes_photos() { Form::Photos } else { Form::Finished };
        let loader = Loader::new(&job, Arc::new(dataset), threads, form)?;
        Ok(Self { job, layout, credentials, engine, loader, staged: None, aligned: Vec::new() })
    }

    /// Forward and backward of one micro-batch into `contribution`; buckets go to `push` as backward
    /// finishes them, and the weights that they were the gradients of are replaced by what arrives by
    /// `pull`. Meanwhile the images of `next` are read.
    pub(super) fn train(
        &mut self,
        assignment: Assignment,
        next: Assignment,
        contribution: &mut Contribution,
        push: &mut Option<Push>,
        pull: &mut Option<Pull>,
    ) -> Result<(), ComputeError> {
        let staged = self.staged.take().filter(|staged| staged.assignment == assignment);
        let Staged { samples, bad_images, .. } = match staged {
            Some(staged) => staged,
            None => self.stage(assignment, self.loader.batch(assignment)?),
        };
        self.loader.prefetch(next);
        let dropout = DropoutCoordinates {
            seed: self.job.config.seed,
            step: assignment.step,
            replica: assignment.replica,
        };
        self.engine.begin(Some(dropout));
        while let Some(made) = self.engine.made()? {
            match made {
                Made::Statistics(values) => contribution.statistics_mut().copy_from_slice(values),
                Made::Bucket(start, gradient) => {
                    contribution.set_bucket(start..start + gradient.len(), gradient);
                    if let Some(push) = push {
                        push.send_next_bucket(contribution);
                    }
                    // Backward never turns round: nothing computes with these weights any more.
                    if let Some(pull) = pull {
                        pull.deliver(self, start);
                    }
                }
            }
            // What a GPU has begun it does by itself, and meanwhile it can be given the next batch.
            if self.staged.is_none()
                && let Some(batch) = self.loader.batch_if_ready(next)?
            {
                self.staged = Some(self.stage(next, batch));
            }
        }
        let StepOutcome { loss, top1 } = self.engine.outcome()?;
        contribution.set_result(StepResult { loss, samples, top1, bad_images });
        Ok(())
    }

    /// Hands `batch` to the engine for the next training step.
    fn stage(&mut self, assignment: Assignment, batch: Batch) -> Staged {
        let Batch { pixels, labels, bad_images } = batch;
        match pixels {
            Pixels::Finished(images) => self.engine.stage(&images, &labels),
            Pixels::Photos(photos) => self.engine.stage_photos(&photos, &labels),
        }
        Staged { assignment, samples: labels.len() as u32, bad_images }
    }

    /// Counts the right answers on one block, with the names of the images that had to be replaced.
    /// Meanwhile the images of `next` are read.
    pub(super) fn evaluate(
        &mut self,
        block: BlockId,
        next: Option<BlockId>,
    ) -> Result<(Tally, Vec<String>), ComputeError> {
        let batch = self.loader.eval_block(block)?;
        next.into_iter().for_each(|next| self.loader.prefetch_eval(next));
        let images = batch.pixels.finish(self.job.config.model.image_size);
        let logits = self.engine.evaluate(&images)?;
        Ok((Tally::new(&logits, &batch.labels), batch.bad_images))
    }
}

/// What arrives goes to the engine at once.
impl Destination for Prepared {
    fn receive(&mut self, vector: Vector, start: usize, values: &[[u8; 4]]) {
        self.aligned.clear();
        self.aligned.extend(values.iter().map(|value| f32::from_le_bytes(*value)));
        match vector {
            Vector::Params => self.engine.load_params_at(start, &self.aligned),
            Vector::Buffers => self.engine.load_buffers_at(start, &self.aligned),
        }
    }
}

/// host:pid, for people.
fn process_label() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}:{}", host.trim(), std::process::id())
}
