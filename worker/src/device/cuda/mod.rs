//! A GPU: our kernels for everything but matrix products, which are cuBLAS's.
//!
//! An operation is lowered to launches by pure functions, one file for each kind of operation; the
//! `runtime` puts them into a stream. Only it, `driver`, and the bindings
//! in `library` and `nvrtc` are unsafe.

mod batch_norm;
mod bias;
mod cache;
mod claim;
mod compiler;
mod conv2d;
mod driver;
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
mod remedy;
mod runtime;
mod softmax_cross_entropy;
mod source;
mod survey;
mod weight_decay;

use std::path::Path;

use driver::Gpu;
pub use kinds::GpuKind;
use lower::{Limits, lower};
pub use plan::{Plan, PlannedOp};
use runtime::{Runtime, RuntimeError};
pub(crate) use survey::first_free;
use survey::{Found, find};
pub use survey::{GpuSurvey, Survey, survey};

use super::{Buffer, Device, DeviceError, DropoutCoordinates, Op, Span};

/// One GPU.
pub struct Cuda {
    gpu: Gpu,
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
        let Found { gpu, compiler } = find(ordinal, folder)?;
        // Whoever asks for a GPU gets it; the claim keeps away those who take any.
        claim::claim(&gpu.id);
        let code = compiler.compile(&source::source());
        let code = code.map_err(|log| failed(ordinal, format!("the kernels: {log}")))?;
        let runtime = Runtime::new(&gpu, code).map_err(|error| failed(ordinal, error))?;
        let limits = GpuKind::of(gpu.arch).limits();
        Ok(Self { gpu, runtime, limits, allocated: 0, failure: None })
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
    fn attempt(&mut self, work: impl FnOnce(&mut Runtime) -> Result<(), RuntimeError>) {
        if self.failure.is_none() {
            let error = work(&mut self.runtime).err();
            self.failure = error.map(|error| failed(self.gpu.ordinal, error));
        }
    }
}

fn failed(ordinal: usize, problem: impl ToString) -> DeviceError {
    DeviceError { device: format!("GPU {ordinal}"), problem: problem.to_string() }
}

impl Device for Cuda {
    type Elem = f32;

    fn describe(&self) -> String {
        format!("GPU {}: {}", self.gpu.ordinal, self.gpu.name)
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
