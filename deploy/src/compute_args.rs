//! Flags of the commands that compute in this process.

use clap::Args;
use hw2_common::checkpoint::Checkpoint;
use hw2_worker::classifier::Classifier;
use hw2_worker::device::Choice;
use hw2_worker::device_args::{DeviceArgs, NoDevice};

/// What to compute on.
#[derive(Args, Clone, Debug)]
pub(crate) struct ComputeArgs {
    #[command(flatten)]
    device: DeviceArgs,

    /// Compute threads of a CPU device; 0 means one for each core
    #[arg(long, value_name = "N", default_value_t = 0)]
    threads: usize,
}

impl ComputeArgs {
    /// The device.
    ///
    /// # Errors
    /// It is not there, or there are several.
    pub(crate) fn choice(&self) -> Result<Choice, NoDevice> {
        let choice = self.device.choice(self.threads)?;
        self.device.check()?;
        Ok(choice)
    }

    /// Loads a checkpoint's network.
    ///
    /// # Errors
    /// As [`Classifier::new`].
    pub(crate) fn classifier(&self, checkpoint: &Checkpoint) -> anyhow::Result<Classifier> {
        Classifier::new(checkpoint, &self.choice()?)
    }
}
