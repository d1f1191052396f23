//! The job's config: what a run is a function of, when it ends, and where things lie.

mod canonical;
mod keys;

use serde::{Deserialize, Serialize};

pub use canonical::Difference;
pub(crate) use canonical::{leaves, line};
pub(crate) use keys::class_of;
pub use keys::{Class, KEYS, Key};

use crate::model::ModelSpec;

/// The config as used: every value present. Each key's class and meaning is in [`KEYS`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Of every random number of the run.
    pub seed: u64,
    /// Logical slices of the global batch.
    pub replicas: u32,
    /// Images of one replica's micro-batch.
    pub batch_size: u32,
    /// Steps between evaluations, each followed by a checkpoint.
    pub checkpoint_every: u64,
    /// Committed steps at which training ends.
    pub max_steps: u64,
    /// Evaluations in a row without a gain after which training ends.
    pub stop_patience: u32,
    /// What to do when a replica's contribution holds a NaN or infinity.
    pub on_non_finite: NonFinite,
    /// Dataset folder or tar.
    pub data: String,
    /// Folder for checkpoints, curves and logs.
    pub run_dir: String,
    /// Where the server listens: host:port or unix:PATH.
    pub listen: String,
    /// Compute threads of a CPU worker; 0 means one per core.
    pub threads: usize,
    /// The network.
    pub model: ModelSpec,
    /// From file to input image.
    pub images: Images,
    /// Adam, EMA and the plateau schedule.
    pub optimizer: Optimizer,
    /// Time limits and sizes of the cluster.
    pub cluster: Cluster,
}

/// `[images]`: the data recipe. Sides in pixels of the canonical image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Images {
    /// Short side of the canonical image; side of the central evaluation crop.
    pub short_side: u32,
    /// Smallest side of a training crop.
    pub crop_min: u32,
    /// Largest side of a training crop.
    pub crop_max: u32,
    /// Mirror left to right at random.
    pub mirror: bool,
    /// Mirror top to bottom at random.
    pub mirror_vertical: bool,
    /// Largest brightness change, in grey levels of 255.
    pub brightness: f32,
    /// Smallest contrast factor.
    pub contrast_min: f32,
    /// Largest contrast factor.
    pub contrast_max: f32,
    /// Largest rotation, in degrees, either way.
    pub rotation_degrees: f32,
    /// Rotate by a random multiple of 90 degrees.
    pub quarter_turns: bool,
    /// Largest relative change of size, either way.
    pub scale: f32,
    /// Largest shift, as a part of the crop's side, either way.
    pub shift: f32,
    /// Part of the pixels turned black or white.
    pub salt_pepper: f32,
    /// Part of the images that may be undecodable before the run stops.
    pub bad_images_max: f32,
}

/// `[optimizer]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Optimizer {
    /// Learning rate at step 0.
    pub learning_rate: f64,
    /// Decay of Adam's first moment.
    pub beta1: f64,
    /// Decay of Adam's second moment.
    pub beta2: f64,
    /// Added to the root of Adam's second moment.
    pub epsilon: f64,
    /// Upper limit of the EMA's decay.
    pub ema_decay_max: f64,
    /// Part by which BN running statistics move towards those of a step.
    pub bn_momentum: f64,
    /// Evaluations in a row without a gain after which, and after each further one, the rate halves.
    pub lr_patience: u32,
    /// Rise of top-1 that counts as a gain.
    pub min_delta: f64,
}

/// `[cluster]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cluster {
    /// Time between two heartbeats of a worker.
    pub heartbeat_interval_ms: u64,
    /// Silence after which a worker's leases expire.
    pub heartbeat_timeout_ms: u64,
    /// Time for one assignment or block after which its lease expires although its worker is alive.
    pub assignment_timeout_ms: u64,
    /// Longest time a pull waits before it ends in Wait.
    pub pull_wait_ms: u64,
    /// Contributions held beyond the next one in replica order; 0 means all replicas.
    pub push_window: u32,
    /// Newest checkpoints kept beside the best.
    pub keep_checkpoints: u32,
    /// Accept workers of another numeric kind: the run is then no longer a pure function.
    pub allow_mixed: bool,
    /// Memory for canonical images in one worker, MiB.
    pub image_cache_mib: u64,
    /// Time for an orderly end after SIGTERM or Ctrl-C.
    pub grace_ms: u64,
}

/// What to do with a contribution that is not finite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NonFinite {
    /// End the run, naming worker, step and samples.
    Stop,
    /// Commit the step without an update.
    Skip,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            seed: 1,
            replicas: 1,
            batch_size: 128,
            checkpoint_every: 300,
            max_steps: 10_000,
            stop_patience: 15,
            on_non_finite: NonFinite::Stop,
            data: "data".into(),
            run_dir: "run".into(),
            listen: "127.0.0.1:50051".into(),
            threads: 0,
            model: ModelSpec::default(),
            images: Images::default(),
            optimizer: Optimizer::default(),
            cluster: Cluster::default(),
        }
    }
}

impl Default for Images {
    fn default() -> Self {
        Self {
            short_side: 260,
            crop_min: 200,
            crop_max: 260,
            mirror: true,
            mirror_vertical: false,
            brightness: 63.0,
            contrast_min: 0.2,
            contrast_max: 1.8,
            rotation_degrees: 0.0,
            quarter_turns: false,
            scale: 0.0,
            shift: 0.0,
            salt_pepper: 0.0,
            bad_images_max: 0.1,
        }
    }
}

impl Default for Optimizer {
    fn default() -> Self {
        Self {
            learning_rate: 1e-3,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            ema_decay_max: 0.9999,
            bn_momentum: 0.05,
            lr_patience: 7,
            min_delta: 1e-5,
        }
    }
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            heartbeat_interval_ms: 500,
            heartbeat_timeout_ms: 10_000,
            assignment_timeout_ms: 300_000,
            pull_wait_ms: 5_000,
            push_window: 0,
            keep_checkpoints: 10,
            allow_mixed: false,
            image_cache_mib: 2048,
            grace_ms: 20_000,
        }
    }
}
