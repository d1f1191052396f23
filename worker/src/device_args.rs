//! The flags that choose a device, the same for every command that computes.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;

use crate::device::cuda::Cuda;
use crate::device::{Choice, DeviceError, Kind};

/// What to compute on.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceArgs {
    /// What to compute on: the first GPU that is free, else the CPU (auto); or the CPU
    #[arg(long, default_value = "auto", value_name = "auto|cpu", conflicts_with = "gpu")]
    pub device: Kind,

    /// Compute on the GPU with this number; for workers also several, as 0,1: a process each
    #[arg(long, value_name = "N[,N]")]
    pub gpu: Option<Gpus>,

    /// Where libcuda, libnvrtc and libcublas are, if not where the system has them
    #[arg(long, value_name = "DIR")]
    pub cuda_lib_dir: Option<PathBuf>,
}

/// Numbers of GPUs: one at least, and none twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpus(Vec<usize>);

/// Flags ask for a device that is not there, or for more than can be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoDevice {
    /// It is not there.
    #[error(transparent)]
    Missing(#[from] DeviceError),
    /// Several GPUs for a command that computes in its own process.
    #[error("--gpu {0}: this command computes on one GPU: name one of them")]
    Several(Gpus),
    /// More GPUs than processes.
    #[error(
        "--gpu {gpus} with --workers {workers}: a worker computes on one GPU, so that some would do \
         nothing: leave --workers out, or name fewer GPUs"
    )]
    Idle {
        /// Those named.
        gpus: Gpus,
        /// Processes.
        workers: usize,
    },
}

impl DeviceArgs {
    /// Whether what was asked for is there, as far as that can be seen at once.
    ///
    /// # Errors
    /// What is missing, and what to do.
    pub fn check(&self) -> Result<(), NoDevice> {
        for gpu in self.gpu.iter().flat_map(|gpus| &gpus.0) {
            Cuda::check(*gpu, self.cuda_lib_dir.as_deref())?;
        }
        Ok(())
    }

    /// The device; `threads` are those of a CPU, 0 for one per core.
    ///
    /// # Errors
    /// There are several.
    pub fn choice(&self, threads: usize) -> Result<Choice, NoDevice> {
        let kind = match &self.gpu {
            None => self.device,
            Some(Gpus(gpus)) if gpus.len() == 1 => Kind::Gpu(gpus[0]),
            Some(gpus) => return Err(NoDevice::Several(gpus.clone())),
        };
        Ok(Choice { kind, threads, cuda_lib_dir: self.cuda_lib_dir.clone() })
    }

    /// These flags for each process that they are meant for: one for each GPU, or just one.
    pub fn each(&self) -> Vec<Self> {
        match &self.gpu {
            None => vec![self.clone()],
            Some(Gpus(gpus)) => {
                let one = |gpu: &usize| Self { gpu: Some(Gpus(vec![*gpu])), ..self.clone() };
                gpus.iter().map(one).collect()
            }
        }
    }

    /// These flags for each of `workers` processes, which take the GPUs in turn.
    ///
    /// # Errors
    /// There are more GPUs than processes.
    pub fn for_workers(&self, workers: usize) -> Result<Vec<Self>, NoDevice> {
        let each = self.each();
        match &self.gpu {
            Some(gpus) if each.len() > workers => {
                Err(NoDevice::Idle { gpus: gpus.clone(), workers })
            }
            _ => Ok(each.into_iter().cycle().take(workers).collect()),
        }
    }

    /// The same as flags for another process.
    pub fn flags(&self) -> Vec<OsString> {
        let mut flags: Vec<OsString> = match &self.gpu {
            Some(gpus) => vec!["--gpu".into(), gpus.to_string().into()],
            None => vec!["--device".into(), self.device.to_string().into()],
        };
        if let Some(folder) = &self.cuda_lib_dir {
            flags.extend(["--cuda-lib-dir".into(), folder.into()]);
        }
        flags
    }
}

impl FromStr for Gpus {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut seen = BTreeSet::new();
        let number = |part: &str| {
            // Not as Rust reads it: no sign.
            let is_number = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            let number = part.parse().ok().filter(|_| is_number);
            let number = number.ok_or_else(|| {
                format!("`{part}` is no number of a GPU: write them as in 0 or 0,1")
            })?;
            match seen.insert(number) {
                true => Ok(number),
                false => Err(format!("GPU {number} is named twice: a GPU has one worker")),
            }
        };
        text.split(',').map(number).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for Gpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers: Vec<String> = self.0.iter().map(usize::to_string).collect();
        f.write_str(&numbers.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(gpus: &str) -> DeviceArgs {
        DeviceArgs { gpu: Some(gpus.parse().unwrap()), ..DeviceArgs::default() }
    }

    #[test]
    fn numbers_of_gpus_are_read_strictly() {
        for good in ["0", "7", "1,0", "0,1,2,3"] {
            assert_eq!(good.parse::<Gpus>().unwrap().to_string(), good);
        }
        for (bad, part) in [
            ("", "`` is no number"),
            ("0,", "`` is no number"),
            ("0,x", "`x` is no number"),
            ("+1", "`+1` is no number"),
            ("0, 1", "` 1` is no number"),
            ("0-3", "`0-3` is no number"),
            ("99999999999999999999", "99999 is no number"),
            ("1,0,1", "GPU 1 is named twice"),
        ] {
            let error = bad.parse::<Gpus>().unwrap_err();
            assert!(error.replace("9`", "9").contains(part), "{bad}: {error}");
        }
    }

    #[test]
    fn workers_take_the_gpus_in_turn() {
        let of = |device: DeviceArgs, workers| device.for_workers(workers);
        let expected = ["2", "0", "2"].map(on);
        assert_eq!(of(on("2,0"), 3).unwrap(), expected);
        assert_eq!(of(DeviceArgs::default(), 2).unwrap(), [(); 2].map(|()| DeviceArgs::default()));
        let error = of(on("0,1"), 1).unwrap_err().to_string();
        assert!(error.contains("--gpu 0,1") && error.contains("--workers 1"), "{error}");
    }

    #[test]
    fn a_process_computes_on_one_gpu() {
        assert_eq!(on("3").choice(0).unwrap().kind, Kind::Gpu(3));
        let error = on("0,1").choice(0).unwrap_err().to_string();
        assert!(error.contains("--gpu 0,1"), "{error}");
    }
}
