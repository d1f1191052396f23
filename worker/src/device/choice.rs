//! Which device to compute on, as a person asks for it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use hw2_common::config::Precision;

use super::cpu::Cpu;
use super::cuda::{Cuda, first_free};
use super::plain::Plain;
use super::{DeviceError, Pipeline, Serial};

/// A device whose kind is known only when the program runs.
pub type AnyDevice = Box<dyn Pipeline<Elem = f32>>;

/// What to compute on, and what that needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// What to compute on.
    pub kind: Kind,
    /// Compute threads of a CPU; 0 means one for each core.
    pub threads: usize,
    /// Where the libraries of CUDA are, if not where the system has them.
    pub cuda_lib_dir: Option<PathBuf>,
}

/// A kind of device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Kind {
    /// The first GPU that no other process of ours computes on, else the CPU.
    #[default]
    Auto,
    /// The GPU with this number.
    Gpu(usize),
    /// The fast CPU device.
    Cpu,
    /// The plain loops in f32: the specification, for comparisons.
    PlainF32,
    /// The plain loops in f64, for `hw2 verify` alone.
    PlainF64,
}

impl Choice {
    /// The same for good: instead of `Auto` what there is now. Who opens a device twice needs that.
    pub fn resolve(&self) -> Self {
        let kind = match self.kind {
            Kind::Auto => match first_free(self.cuda_lib_dir.as_deref()) {
                Ok(ordinal) => {
                    tracing::info!("computing on GPU {ordinal}, the first that is free");
                    Kind::Gpu(ordinal)
                }
                Err(error) => {
                    tracing::info!("computing on the CPU, because of {error}");
                    Kind::Cpu
                }
            },
            kind => kind,
        };
        Self { kind, ..self.clone() }
    }

    /// `wanted`, or fp32 where there is nothing else because this is no GPU.
    pub fn precision(&self, wanted: Precision) -> Precision {
        match self.kind {
            Kind::Auto | Kind::Gpu(_) => wanted,
            Kind::Cpu | Kind::PlainF32 | Kind::PlainF64 => Precision::Fp32,
        }
    }

    /// Starts the device, for activations of `precision`.
    ///
    /// # Errors
    /// It is not there, or does not have that precision.
    pub fn open(&self, precision: Precision) -> Result<AnyDevice, DeviceError> {
        if self.precision(precision) != precision {
            return Err(DeviceError {
                device: self.kind.to_string(),
                problem: format!(
                    "it computes in fp32 and not in {precision}: use a GPU of compute capability \
                     8.0 or above, or precision = \"fp32\""
                ),
            });
        }
        Ok(match self.kind {
            Kind::Auto => self.resolve().open(precision)?,
            Kind::Gpu(ordinal) => self.gpu(ordinal, precision)?,
            Kind::Cpu => self.cpu()?,
            Kind::PlainF32 => Box::new(Serial::new(Plain::<f32>::new())),
            Kind::PlainF64 => {
                return Err(DeviceError {
                    device: self.kind.to_string(),
                    problem: "it is there for `hw2 verify` alone: choose auto or cpu".into(),
                });
            }
        })
    }

    fn gpu(&self, ordinal: usize, precision: Precision) -> Result<AnyDevice, DeviceError> {
        Ok(Box::new(Cuda::new(ordinal, self.cuda_lib_dir.as_deref(), precision)?))
    }

    fn cpu(&self) -> Result<AnyDevice, DeviceError> {
        Ok(Box::new(Serial::new(Cpu::new(self.threads)?)))
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "plain-f32" => Ok(Self::PlainF32),
            "plain-f64" => Ok(Self::PlainF64),
            _ => Err(format!("`{text}` is no device: choose auto or cpu, or a GPU by --gpu")),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Gpu(ordinal) => write!(f, "GPU {ordinal}"),
            Self::Cpu => f.write_str("cpu"),
            Self::PlainF32 => f.write_str("plain-f32"),
            Self::PlainF64 => f.write_str("plain-f64"),
        }
    }
}
