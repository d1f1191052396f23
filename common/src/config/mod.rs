//! The job's config: what a run is a function of, when it ends, and where things lie.
//!
//! [`Layers`] is the config as typed: defaults, a file, a profile, the environment, flags. Loading
//! checks all of them and makes one [`Config`], in which every value is present and valid.

mod blocks;
mod canonical;
mod file;
mod keys;
mod layers;
mod resolved;
mod section;
mod validate;
mod value;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use canonical::Difference;
pub(crate) use canonical::{leaves, line};
pub(crate) use keys::class_of;
use keys::{BELOW_ONE, NOT_NEGATIVE, PART, POSITIVE, POSITIVE_F32, integer, up_to};
pub use keys::{Class, Key, ValueType, key, keys};
pub use layers::{Flag, Layers, environment, parse_setting};
pub use resolved::{Resolved, Row, Source};
use section::section;
pub use validate::ConfigError;

use crate::model::ModelSpec;

/// Steps and epochs are drawn from in u32.
const STEPS_MAX: u64 = u32::MAX as u64;
/// Widest canonical image, in pixels of its short side.
const SIDE_MAX: u64 = 4096;
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

section! {
    /// The config as used: every value present. [`keys`] has each key's class, type and meaning.
    Config, CONFIG_KEYS, "" {
        /// Of every random number of the run.
        seed: u64 = 1, Run, integer(0, i64::MAX as u64);
        /// Logical slices of the global batch.
        replicas: u32 = 1, Run, integer(1, 65_535);
        /// Images of one replica's micro-batch.
        batch_size: u32 = 128, Run, integer(1, 65_536);
        /// Of activations and products on a GPU; bf16 and tf32 need one that has them.
        precision: Precision = Precision::Fp32, Run, ValueType::OneOf(&["fp32", "tf32", "bf16"]);
        /// How weights and gradients travel: bf16 has half the bytes. The server computes in f32.
        wire: WireFormat = WireFormat::F32, Run, ValueType::OneOf(&["f32", "bf16"]);
        /// Steps between evaluations, each followed by a checkpoint.
        checkpoint_every: u64 = 300, Run, integer(1, STEPS_MAX);
        /// Committed steps at which training ends.
        max_steps: u64 = 10_000, Stop, integer(1, STEPS_MAX);
        /// Evaluations in a row without a gain after which training ends.
        stop_patience: u32 = 15, Stop, integer(1, u32::MAX as u64);
        /// What to do when a replica's contribution holds a NaN or infinity.
        on_non_finite: NonFinite = NonFinite::Stop, Run, ValueType::OneOf(&["stop", "skip"]);
        /// Dataset folder or tar.
        data: String = "data".into(), Place, ValueType::Text;
        /// Folder for checkpoints, curves and logs.
        run_dir: String = "run".into(), Place, ValueType::Text;
        /// Where the server listens: host:port or unix:PATH.
        listen: String = "127.0.0.1:50051".into(), Place, ValueType::Text;
        /// Compute threads of a CPU worker; 0 means one per core.
        threads: usize = 0, Place, integer(0, 4096);
        sections {
            /// The network.
            model: ModelSpec,
            /// From file to input image.
            images: Images,
            /// Adam, EMA and the plateau schedule.
            optimizer: Optimizer,
            /// Time limits and sizes of the cluster.
            cluster: Cluster,
        }
    }
}

/// Keys of [`ModelSpec`].
const MODEL_KEYS: &[Key] = &[
    Key {
        name: "model.image_size",
        class: Class::Run,
        value: integer(1, 65_536),
        doc: "Rows and columns of the square input image.",
    },
    Key {
        name: "model.blocks",
        class: Class::Run,
        value: ValueType::Blocks,
        doc: "The blocks in the order in which an image passes them; given, they replace all \
              blocks of the default.",
    },
];

section! {
    /// `[images]`: the data recipe. Sides in pixels of the canonical image.
    Images, IMAGES_KEYS, "images." {
        /// Short side of the canonical image; side of the central evaluation crop.
        short_side: u32 = 260, Run, integer(1, SIDE_MAX);
        /// Smallest side of a training crop.
        crop_min: u32 = 200, Run, integer(1, SIDE_MAX);
        /// Largest side of a training crop.
        crop_max: u32 = 260, Run, integer(1, SIDE_MAX);
        /// Mirror left to right at random.
        mirror: bool = true, Run, ValueType::Boolean;
        /// Mirror top to bottom at random.
        mirror_vertical: bool = false, Run, ValueType::Boolean;
        /// Largest brightness change, in grey levels of 255.
        brightness: f32 = 63.0, Run, up_to(255.0);
        /// Smallest contrast factor.
        contrast_min: f32 = 0.2, Run, NOT_NEGATIVE;
        /// Largest contrast factor.
        contrast_max: f32 = 1.8, Run, NOT_NEGATIVE;
        /// Largest rotation, in degrees, either way.
        rotation_degrees: f32 = 0.0, Run, up_to(180.0);
        /// Rotate by a random multiple of 90 degrees.
        quarter_turns: bool = false, Run, ValueType::Boolean;
        /// Largest relative change of size, either way.
        scale: f32 = 0.0, Run, BELOW_ONE;
        /// Largest shift, as a part of the crop's side, either way.
        shift: f32 = 0.0, Run, PART;
        /// Part of the pixels turned black or white.
        salt_pepper: f32 = 0.0, Run, PART;
        /// Part of the images that may be undecodable before the run stops.
        bad_images_max: f64 = 0.1, Stop, PART;
    }
}

section! {
    /// `[optimizer]`: Adam, EMA and the plateau schedule.
    Optimizer, OPTIMIZER_KEYS, "optimizer." {
        /// Learning rate at step 0.
        learning_rate: f64 = 1e-3, Run, POSITIVE;
        /// Decay of Adam's first moment.
        beta1: f64 = 0.9, Run, BELOW_ONE;
        /// Decay of Adam's second moment.
        beta2: f64 = 0.999, Run, BELOW_ONE;
        /// Added to the root of Adam's second moment.
        epsilon: f64 = 1e-8, Run, POSITIVE_F32;
        /// Upper limit of the EMA's decay.
        ema_decay_max: f64 = 0.9999, Run, BELOW_ONE;
        /// Part by which BN running statistics move towards those of a step.
        bn_momentum: f64 = 0.05, Run, PART;
        /// Evaluations in a row without a gain after which, and after each further one, the
        /// learning rate halves.
        lr_patience: u32 = 7, Run, integer(1, u32::MAX as u64);
        /// Rise of top-1 that counts as a gain.
        min_delta: f64 = 1e-5, Run, PART;
    }
}

section! {
    /// `[cluster]`: time limits and sizes.
    Cluster, CLUSTER_KEYS, "cluster." {
        /// Time between two heartbeats of a worker.
        heartbeat_interval_ms: u64 = 500, Place, integer(1, DAY_MS);
        /// Silence after which a worker's leases expire.
        heartbeat_timeout_ms: u64 = 10_000, Place, integer(1, DAY_MS);
        /// Time for one assignment or block after which its lease expires although its worker is
        /// alive.
        assignment_timeout_ms: u64 = 300_000, Place, integer(1, DAY_MS);
        /// Longest time that a worker with nothing to do waits before it is told to.
        wait_ms: u64 = 5_000, Place, integer(1, DAY_MS);
        /// Contributions that the server holds beyond the next one in replica order; 0 means what
        /// 64 MiB hold, 4 at least.
        push_window: u32 = 0, Place, integer(0, 65_535);
        /// Newest checkpoints kept beside the best.
        keep_checkpoints: u32 = 10, Place, integer(1, u32::MAX as u64);
        /// Accept workers of another numeric kind: the run is then no longer a pure function.
        allow_mixed: bool = false, Place, ValueType::Boolean;
        /// Memory for canonical images in one worker, MiB.
        image_cache_mib: u64 = 512, Place, integer(0, 1 << 24);
        /// Time for an orderly end after SIGTERM or Ctrl-C.
        grace_ms: u64 = 20_000, Place, integer(0, DAY_MS);
    }
}

/// How exact activations are, and the products that make them. Parameters, statistics and all sums
/// are f32 or better.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// f32 throughout.
    #[default]
    Fp32,
    /// Activations in f32, of which products see the upper 19 bits.
    Tf32,
    /// Activations in bfloat16.
    Bf16,
}

impl Precision {
    /// All, with the words for them.
    const ALL: [(Self, &str); 3] =
        [(Self::Fp32, "fp32"), (Self::Tf32, "tf32"), (Self::Bf16, "bf16")];
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = Self::ALL.into_iter().find(|(precision, _)| precision == self);
        f.write_str(word.expect("all are there").1)
    }
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let word = Self::ALL.into_iter().find(|(_, word)| *word == text);
        let named = || format!("`{text}` is no precision: choose fp32, tf32 or bf16");
        word.map(|(precision, _)| precision).ok_or_else(named)
    }
}

/// How weights and gradients travel between server and workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WireFormat {
    /// As they are.
    #[default]
    F32,
    /// Rounded to bfloat16.
    Bf16,
}

impl WireFormat {
    /// All, with the words for them.
    const ALL: [(Self, &str); 2] = [(Self::F32, "f32"), (Self::Bf16, "bf16")];
}

impl fmt::Display for WireFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = Self::ALL.into_iter().find(|(format, _)| format == self);
        f.write_str(word.expect("all are there").1)
    }
}

impl FromStr for WireFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let word = Self::ALL.into_iter().find(|(_, word)| *word == text);
        word.map(|(format, _)| format)
            .ok_or_else(|| format!("`{text}` is no format of the wire: choose f32 or bf16"))
    }
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

#[cfg(test)]
mod tests;
