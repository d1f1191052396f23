//! The flags that choose a device, the same for every command that computes.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use crate::device::cuda::Cuda;
use crate::device::{Choice, DeviceError, Kind};

/// What to compute on.
#[derive(Args, Clone, Debug, Default)]
pub struct DeviceArgs {
    /// What to compute on: the first GPU that is free, else the CPU (auto); or the CPU
    #[arg(long, default_value = "auto", value_name = "auto|cpu", conflicts_with = "gpu")]
    pub device: Kind,

    /// Compute on the GPU with this number
    #[arg(long, value_name = "N")]
    pub gpu: Option<usize>,

    /// Where libcuda, libnvrtc and libcublas are, if not where the system has them
    #[arg(long, value_name = "DIR")]
    pub cuda_lib_dir: Option<PathBuf>,
}

/// A device that was asked for is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(transparent)]
pub struct NoDevice(#[from] DeviceError);

impl DeviceArgs {
    /// Whether what was asked for is there, as far as that can be seen at once.
    ///
    /// # Errors
    /// What is missing, and what to do.
    pub fn check(&self) -> Result<(), NoDevice> {
        match self.gpu {
            Some(gpu) => Ok(Cuda::check(gpu, self.cuda_lib_dir.as_deref())?),
            None => Ok(()),
        }
    }

    /// The device; `threads` are those of a CPU, 0 for one per core.
    pub fn choice(&self, threads: usize) -> Choice {
        let kind = self.gpu.map_or(self.device, Kind::Gpu);
        Choice { kind, threads, cuda_lib_dir: self.cuda_lib_dir.clone() }
    }

    /// The same as flags for another process.
    pub fn flags(&self) -> Vec<OsString> {
        let mut flags: Vec<OsString> = match self.gpu {
            Some(gpu) => vec!["--gpu".into(), gpu.to_string().into()],
            None => vec!["--device".into(), self.device.to_string().into()],
        };
        if let Some(folder) = &self.cuda_lib_dir {
            flags.extend(["--cuda-lib-dir".into(), folder.into()]);
        }
        flags
    }
}
