//! What a worker must have before it can join: the data, the network on its device, its
//! credentials.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use hw2_common::dataset::Dataset;
use hw2_common::ids::{Assignment, BlockId};
use hw2_common::job::Job;
use hw2_common::layout::ParamLayout;
use hw2_common::trace;
use hw2_common::wire::Values;

use super::{Ahead, Tally};
use crate::args::WorkerArgs;
use crate::data::{Batch, DataError, Form, Loader, Pixels};
use crate::device::{DeviceError, DropoutCoordinates};
use crate::nn::{Engine, Made, StepOutcome};
use crate::numeric_kind::numeric_kind;
use crate::ps::{Contribution, Credentials, Destination, Exchange, StepResult, Vector};

/// Of the trace. What a GPU does is there when the host hears of it: its forward pass with the
/// first bucket of backward.
pub(super) const TRACK: &str = "compute";

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
    /// What most likely comes next.
    next: Option<Assignment>,
    ahead: Ahead,
    /// The last chunk that arrived: on the wire it has any alignment, and either format.
    aligned: Vec<f32>,
}

/// The batch that the engine has for its next training step.
struct Staged {
    assignment: Assignment,
    samples: u32,
    bad_images: Vec<String>,
    /// Whether that step was begun.
    is_taken: bool,
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
        let engine = Engine::new(device.open(precision)?, &network, batch_size, precision)?;
        let credentials = Credentials {
            layout_fingerprint: layout.fingerprint(),
            config_fingerprint: job.config.fingerprint(),
            dataset_fingerprint: dataset.card().fingerprint,
            numeric_kind: numeric_kind(&device, precision)?,
            label: format!("{} {}", process_label(), engine.describe()),
        };
        let form = if engine.finishes_photos() { Form::Photos } else { Form::Finished };
        let loader = Loader::new(&job, Arc::new(dataset), threads, form)?;
        let ahead = Ahead::new(engine.forward_parts());
        Ok(Self {
            job,
            layout,
            credentials,
            engine,
            loader,
            staged: None,
            next: None,
            ahead,
            aligned: Vec::new(),
        })
    }

    /// Forward and backward of one micro-batch into `contribution`; `exchange` takes the buckets as
    /// backward finishes them, and replaces the weights that they were the gradients of by what
    /// arrives. Meanwhile the images of `next` are read.
    pub(super) fn train(
        &mut self,
        assignment: Assignment,
        next: Assignment,
        contribution: &mut Contribution,
        exchange: &mut Exchange<'_>,
    ) -> Result<(), ComputeError> {
        if self.staged.as_ref().is_none_or(|staged| staged.assignment != assignment) {
            let began = Instant::now();
            self.stage(assignment, self.loader.batch(assignment)?);
            trace::span(TRACK, began, assignment.step, || "wait for images".into());
        }
        self.loader.prefetch(next);
        self.next = Some(next);
        if self.ahead.end(assignment) == 0 {
            self.begin_forward(assignment);
        }
        let Staged { samples, bad_images, .. } = self.staged.take().expect("it was just staged");
        while self.forward(assignment) {}
        let mut began = Instant::now();
        self.engine.begin_backward();
        while let Some(made) = self.engine.made()? {
            match made {
                Made::Statistics(values) => contribution.statistics_mut().copy_from_slice(values),
                Made::Bucket(start, gradient) => {
                    let bucket = start..start + gradient.len();
                    trace::span(TRACK, began, assignment.step, || {
                        format!("backward {}", self.layout.layers(&bucket))
                    });
                    began = Instant::now();
                    contribution.set_bucket(bucket, gradient);
                    exchange.bucket_is_made(contribution, start, self);
                }
            }
            // What a GPU has begun it does by itself, and meanwhile it can be given the next batch.
            self.stage_if_ready(next)?;
        }
        let StepOutcome { loss, top1 } = self.engine.outcome()?;
        contribution.set_result(StepResult { loss, samples, top1, bad_images });
        Ok(())
    }

    /// Hands `batch` to the engine for the next training step.
    fn stage(&mut self, assignment: Assignment, batch: Batch) {
        let Batch { pixels, labels, bad_images } = batch;
        match pixels {
            Pixels::Finished(images) => self.engine.stage(&images, &labels),
            Pixels::Photos(photos) => self.engine.stage_photos(&photos, &labels),
        }
        let samples = labels.len() as u32;
        self.staged = Some(Staged { assignment, samples, bad_images, is_taken: false });
    }

    /// Hands the batch of `next` to the engine if it has none and this one has been made. Says
    /// whether it has it.
    fn stage_if_ready(&mut self, next: Assignment) -> Result<bool, DataError> {
        if self.staged.is_none()
            && let Some(batch) = self.loader.batch_if_ready(next)?
        {
            self.stage(next, batch);
        }
        Ok(self.staged.as_ref().is_some_and(|staged| staged.assignment == next))
    }

    /// Begins the training step over the batch that was staged.
    fn begin_forward(&mut self, assignment: Assignment) {
        let Assignment { step, replica } = assignment;
        let dropout = DropoutCoordinates { seed: self.job.config.seed, step, replica };
        self.engine.begin_forward(Some(dropout));
        if let Some(staged) = &mut self.staged {
            staged.is_taken = true;
        }
    }

    /// Does the next part of the forward pass; false after the last.
    fn forward(&mut self, assignment: Assignment) -> bool {
        let began = Instant::now();
        let Some(params) = self.engine.forward_part() else { return false };
        let name = || format!("forward {}", self.layout.layers(&params));
        trace::span(TRACK, began, assignment.step, name);
        true
    }

    /// Counts the right answers on one block, with the names of the images that had to be replaced.
    /// Meanwhile the images of `next` are read.
    pub(super) fn evaluate(
        &mut self,
        block: BlockId,
        next: Option<BlockId>,
    ) -> Result<(Tally, Vec<String>), ComputeError> {
        // Its images take the place of those of a step that was begun ahead.
        self.renew();
        let batch = self.loader.eval_block(block)?;
        next.into_iter().for_each(|next| self.loader.prefetch_eval(next));
        let images = batch.pixels.finish(self.job.config.model.image_size);
        let began = Instant::now();
        let logits = self.engine.evaluate(&images)?;
        trace::span(TRACK, began, None, || format!("evaluate {block}"));
        Ok((Tally::new(&logits, &batch.labels), batch.bad_images))
    }
}

/// What arrives goes to the engine at once, which begins the next step's forward pass on it.
impl Destination for Prepared {
    fn receive(&mut self, vector: Vector, start: usize, values: Values<'_>) {
        self.aligned.resize(values.len(), 0.0);
        values.copy_to(&mut self.aligned);
        match vector {
            Vector::Weights => {
                self.ahead.arrived(start, values.len());
                self.engine.load_params_at(start, &self.aligned);
            }
            Vector::Ema => self.engine.load_params_at(start, &self.aligned),
            Vector::Buffers => self.engine.load_buffers_at(start, &self.aligned),
        }
    }

    fn renew(&mut self) {
        self.ahead.renew();
        // What was begun has changed its images, or their place.
        self.staged.take_if(|staged| staged.is_taken);
    }

    fn work_ahead(&mut self) -> bool {
        let Some(next) = self.next.filter(|_| self.ahead.is_ready()) else { return false };
        // An error is met again when the batch is needed.
        if !self.stage_if_ready(next).unwrap_or(false) {
            return false;
        }
        if self.ahead.begin(next) == 0 {
            self.begin_forward(next);
        }
        self.forward(next)
    }
}

/// host:pid, for people.
fn process_label() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}:{}", host.trim(), std::process::id())
}
