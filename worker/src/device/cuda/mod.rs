//! A GPU: our kernels for everything but matrix products, which are cuBLAS's.
//!
//! An operation is lowered to launches by pure functions, one file for each kind of operation; the
//! `runtime` puts them into a stream. Only it, the loader and the compiler's binding are unsafe.

mod batch_norm;
mod bias;
mod conv2d;
mod dropout;
#[cfg(test)]
mod gate;
mod gemm;
mod kinds;
mod launch;
mod library;
mod lower;
mod max_pool;
mod nvrtc;
mod plan;
mod relu;
mod runtime;
mod softmax_cross_entropy;
mod source;
mod weight_decay;

use std::path::Path;

pub use kinds::GpuKind;
use library::Name;
use lower::{Limits, lower};
use nvrtc::Nvrtc;
pub use plan::{Plan, PlannedOp};
use runtime::{Driver, Gpu, Runtime, RuntimeError};

use super::{Buffer, Device, DeviceError, DropoutCoordinates, Op, Span};

/// One GPU.
pub struct Cuda {
    ordinal: usize,
    runtime: Runtime,
    limits: Limits,
    /// Buffers so far, those included that did not fit.
    allocated: usize,
    /// For the next download to report.
    failure: Option<DeviceError>,
}

impl Cuda {
    /// GPU number `ordinal`, with the libraries of CUDA from `folder`, or from where the system has
    /// them.
    ///
    /// # Errors
    /// A library is missing, there is no such GPU, or it does not work.
    pub fn new(ordinal: usize, folder: Option<&Path>) -> Result<Self, DeviceError> {
        let Found { gpu, arch, nvrtc } = find(ordinal, folder)?;
        let compiled = nvrtc.compile(&source::source(), arch, &[]);
        let compiled = compiled.map_err(|log| failed(ordinal, format!("the kernels: {log}")))?;
        let runtime = Runtime::new(gpu, compiled.code).map_err(|error| failed(ordinal, error))?;
        let limits = GpuKind::of(arch).limits();
        Ok(Self { ordinal, runtime, limits, allocated: 0, failure: None })
    }

    /// Whether GPU number `ordinal` and the libraries are there.
    ///
    /// # Errors
    /// What is missing.
    pub fn check(ordinal: usize, folder: Option<&Path>) -> Result<(), DeviceError> {
        find(ordinal, folder).map(drop)
    }

    /// The same with columns of one image at a time, as for images that are large.
    #[cfg(test)]
    pub(super) fn one_image_at_a_time(mut self) -> Self {
        self.limits.column_bytes = 1;
        self
    }

    /// Does `work`, unless something failed before.
    fn attempt<R: Default>(
        &mut self,
        work: impl FnOnce(&mut Runtime) -> Result<R, RuntimeError>,
    ) -> R {
        if self.failure.is_some() {
            return R::default();
        }
        work(&mut self.runtime).unwrap_or_else(|error| {
            self.failure = Some(failed(self.ordinal, error));
            R::default()
        })
    }
}

/// A GPU and the compiler for it. libcublas is loaded.
struct Found {
    gpu: Gpu,
    arch: u32,
    nvrtc: Nvrtc,
}

fn find(ordinal: usize, folder: Option<&Path>) -> Result<Found, DeviceError> {
    let folders = library::folders(folder);
    let load = |name, majors: &[u32]| {
        let found = library::load(name, majors, &folders);
        let found = found.map_err(|missing| failed(ordinal, missing))?;
        tracing::debug!("CUDA {}: {}", found.major, found.path.display());
        Ok(found)
    };
    let broken = |error: RuntimeError| failed(ordinal, error);
    load(Name::Cuda, &[0])?.keep();
    let driver = Driver::new().map_err(broken)?;
    match driver.gpus {
        0 => return Err(failed(ordinal, "there is no GPU: use --device cpu")),
        gpus if ordinal >= gpus => {
            let problem = format!("there is no such GPU: they are numbered from 0 to {}", gpus - 1);
            return Err(failed(ordinal, problem));
        }
        _ => {}
    }
    let gpu = driver.gpu(ordinal).map_err(broken)?;
    let arch = gpu.arch().map_err(broken)?;
    let majors = library::majors(driver.version, arch);
    let nvrtc = load(Name::Nvrtc, &majors)?;
    load(Name::Cublas, &majors)?.keep();
    let nvrtc = Nvrtc::new(nvrtc.library).map_err(|error| failed(ordinal, error))?;
    Ok(Found { gpu, arch, nvrtc })
}

fn failed(ordinal: usize, problem: impl ToString) -> DeviceError {
    DeviceError { device: format!("GPU {ordinal}"), problem: problem.to_string() }
}

impl Device for Cuda {
    type Elem = f32;

    fn describe(&self) -> String {
        format!("GPU {}: {}", self.ordinal, self.runtime.name())
    }

    fn alloc(&mut self, len: usize) -> Buffer {
        self.attempt(|runtime| runtime.alloc(len));
        self.allocated += 1;
        Buffer::numbered(self.allocated - 1)
    }

    fn upload(&mut self, target: Span, values: &[f32]) {
        self.attempt(|runtime| runtime.upload(target, values));
    }

    fn download(&mut self, source: Span, values: &mut [f32]) -> Result<(), DeviceError> {
        self.attempt(|runtime| runtime.download(source, values));
        self.failure.clone().map_or(Ok(()), Err)
    }

    fn set_dropout(&mut self, coordinates: DropoutCoordinates) {
        self.attempt(|runtime| runtime.set_dropout(coordinates));
    }

    fn run(&mut self, op: Op) {
        let lowered = lower(op, self.limits);
        self.attempt(|runtime| {
            runtime.reserve(lowered.workspace_bytes)?;
            lowered.launches.iter().try_for_each(|launch| runtime.launch(launch))
        });
    }
}
