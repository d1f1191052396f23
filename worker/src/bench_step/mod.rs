//! `hw2 bench step`: how fast this machine trains and evaluates, on random images in memory.
//!
//! A training step is forward and backward, with dropout, every bucket of the gradient handed over.
//! Adam is no part of it: in this system the server does that.

mod timed;

use std::hint::black_box;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use hw2_common::config::Precision;
use hw2_common::ids::{GlobalStep, ReplicaId};
use hw2_common::layout::ParamLayout;
use hw2_common::model::Network;
use serde::Serialize;

use crate::device::{Choice, DeviceError, DropoutCoordinates, Pipeline, Serial};
use crate::nn::{Engine, Model};
use crate::verify::fill;
pub use timed::PrimitiveTime;
use timed::Timed;

/// Steps before the measured ones.
const WARM_UP: u32 = 2;

/// What to measure.
#[derive(Clone, Debug)]
pub struct StepBenchOptions {
    /// What to compute on.
    pub device: Choice,
    /// What to compute.
    pub network: Network,
    /// Of activations.
    pub precision: Precision,
    /// Images of a batch.
    pub batch_size: usize,
    /// Measured steps, of which the median counts.
    pub repeats: u32,
    /// Whether to say also where the time of a training step goes.
    pub primitives: bool,
}

/// What was measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepBench {
    /// The device in words.
    pub device: String,
    /// Numbers that are trained.
    pub parameters: usize,
    /// Of activations.
    pub precision: Precision,
    /// Images of a batch.
    pub batch_size: usize,
    /// Median time of a training step, without the optimizer.
    pub train_step_ms: f64,
    /// Training images a second.
    pub train_images_per_second: f64,
    /// Median time of an evaluation step.
    pub evaluate_ms: f64,
    /// Evaluation images a second.
    pub evaluate_images_per_second: f64,
    /// Most memory that this process has held so far, where the system tells.
    pub peak_memory_bytes: Option<u64>,
    /// Where the time of a training step goes, the longest first; empty unless asked for.
    pub primitives: Vec<PrimitiveTime>,
}

/// Measures.
///
/// # Errors
/// The device is not there, or fails.
pub fn bench_step(options: &StepBenchOptions) -> Result<StepBench, DeviceError> {
    let options = &StepBenchOptions { device: options.device.resolve(), ..options.clone() };
    let StepBenchOptions { device, network, precision, batch_size, repeats, .. } = options;
    let mut engine = Engine::new(device.open(*precision)?, network, *batch_size, *precision)?;
    let batch = Batch::new(network, *batch_size);
    batch.load(&mut engine);
    let train = median_ms(*repeats, || batch.train(&mut engine))?;
    let evaluate = median_ms(*repeats, || {
        engine.evaluate(&batch.images).map(|logits| drop(black_box(logits)))
    })?;
    let per_second = |ms: f64| *batch_size as f64 / ms * 1e3;
    Ok(StepBench {
        device: engine.describe(),
        parameters: batch.params.len(),
        precision: *precision,
        batch_size: *batch_size,
        train_step_ms: train,
        train_images_per_second: per_second(train),
        evaluate_ms: evaluate,
        evaluate_images_per_second: per_second(evaluate),
        peak_memory_bytes: peak_memory_bytes(),
        primitives: if options.primitives { primitives(options)? } else { Vec::new() },
    })
}

/// Synthetic images and labels, and parameters to train with them.
struct Batch {
    images: Vec<f32>,
    labels: Vec<u32>,
    params: Vec<f32>,
    buffers: Vec<f32>,
}

impl Batch {
    fn new(network: &Network, batch_size: usize) -> Self {
        let layout = ParamLayout::new(network);
        let classes = network.classes as u32;
        Self {
            images: fill(1, batch_size * network.input.len(), 2.0, 0.0),
            labels: (0..batch_size as u32).map(|image| image % classes).collect(),
            params: layout.initial_params(1),
            buffers: layout.initial_buffers(),
        }
    }

    fn load<D: Pipeline<Elem = f32>>(&self, engine: &mut Model<D>) {
        engine.load_params(&self.params);
        engine.load_buffers(&self.buffers);
        engine.stage(&self.images, &self.labels);
    }

    /// A step as a worker does it: the next batch is on its way while this one is computed.
    fn train<D: Pipeline<Elem = f32>>(&self, engine: &mut Model<D>) -> Result<(), DeviceError> {
        let dropout = DropoutCoordinates { seed: 1, step: GlobalStep(0), replica: ReplicaId(0) };
        engine.begin(Some(dropout));
        engine.stage(&self.images, &self.labels);
        while let Some(made) = engine.made()? {
            black_box(made.values());
        }
        black_box(engine.outcome()?);
        Ok(())
    }
}

/// Median milliseconds of `repeats` calls of `step`, after a few that do not count.
fn median_ms(
    repeats: u32,
    mut step: impl FnMut() -> Result<(), DeviceError>,
) -> Result<f64, DeviceError> {
    let mut times = Vec::new();
    for call in 0..WARM_UP + repeats.max(1) {
        let began = Instant::now();
        step()?;
        if call >= WARM_UP {
            times.push(began.elapsed().as_secs_f64() * 1e3);
        }
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

/// The same training steps with a clock around every primitive.
fn primitives(options: &StepBenchOptions) -> Result<Vec<PrimitiveTime>, DeviceError> {
    let times = Arc::new(Mutex::default());
    let StepBenchOptions { device, network, precision, batch_size, .. } = options;
    let device = Timed::new(device.open(*precision)?, Arc::clone(&times));
    let mut model = Model::new(Serial::new(device), network, *batch_size, *precision)?;
    let batch = Batch::new(&options.network, options.batch_size);
    batch.load(&mut model);
    for call in 0..WARM_UP + options.repeats.max(1) {
        if call == WARM_UP {
            times.lock().expect("no step panicked").clear();
        }
        batch.train(&mut model)?;
    }
    Ok(timed::summary(&times, options.repeats.max(1)))
}

/// The high-water mark of this process's resident memory.
fn peak_memory_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}
