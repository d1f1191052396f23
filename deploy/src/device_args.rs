//! Flags of the commands that compute in this process.

use clap::Args;
use hw2_common::checkpoint::Checkpoint;
use hw2_worker::classifier::Classifier;
use hw2_worker::device::Choice;

/// What to compute on.
#[derive(Args, Clone, Debug)]
pub(crate) struct DeviceArgs {
    /// What to compute on
    #[arg(long, default_value = "auto", value_name = "auto|cpu")]
    pub(crate) device: Choice,

    /// Compute threads of a CPU device; 0 means one for each core
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) threads: usize,
}

impl DeviceArgs {
    /// Loads a checkpoint's network.
    ///
    /// # Errors
    /// As [`Classifier::new`].
    pub(crate) fn classifier(&self, checkpoint: &Checkpoint) -> anyhow::Result<Classifier> {
        Classifier::new(checkpoint, self.device, self.threads)
    }
}
