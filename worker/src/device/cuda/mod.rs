//! A GPU: our kernels for everything but matrix products, which are cuBLAS's.
//!
//! An operation is lowered to launches by pure functions, one file for each kind of operation; the
//! `runtime` puts them into a stream, and what is done at every step, a `routine`, becomes a
//! `graph`. Only `runtime`, `graph`, `blas`, `transfer`, `driver`, and the bindings in `library`,
//! `nvrtc`, and `cublas` are unsafe.

mod arena;
mod augment;
mod batch_norm;
mod bias;
mod blas;
mod cache;
mod cast;
mod claim;
mod compiler;
mod conv2d;
mod cublas;
mod driver;
mod dropout;
#[cfg(test)]
mod gate;
mod gemm;
mod graph;
mod kinds;
mod launch;
mod library;
mod lower;
mod max_pool;
mod nvrtc;
mod plan;
mod pointwise;
mod relu;
mod remedy;
mod routine;
mod runtime;
mod softmax_cross_entropy;
mod source;
mod survey;
mod transfer;
mod unit;
mod weight_decay;

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use hw2_common::config::Precision;
use sha2::{Digest, Sha256};

use arena::Arena;
use driver::Gpu;
pub use kinds::GpuKind;
use lower::{Limits, Lowering, lower};
pub use plan::{Cost, Plan, PlannedLayer, PlannedOp};
use routine::Routine;
use runtime::{Runtime, RuntimeError};
pub(crate) use survey::first_free;
use survey::{Found, find};
pub use survey::{GpuSurvey, Survey, survey};
use transfer::{Download, Upload};

use super::{
    Buffer, Device, DeviceError, DropoutCoordinates, Format, Op, Pipeline, Request, Segment, Span,
    Tensor,
};
use crate::photo::Photo;

/// The oldest compute capability that has TF32 and bfloat16.
const REDUCED_PRECISION_MIN: u32 = 80;
/// Lists of operations that are kept; a training run has two for each bucket, and some more.
const ROUTINES_MAX: usize = 256;

/// One GPU.
pub struct Cuda {
    gpu: Gpu,
    runtime: Runtime,
    /// Digest of the compiled kernels.
    code: String,
    /// Version of cuBLAS: major, minor, patch.
    cublas: [u32; 3],
    limits: Limits,
    /// Buffers so far, those included that did not fit.
    allocated: usize,
    routines: Vec<Routine>,
    staged: Vec<(Upload, Target)>,
    /// What is on its way from the device, and what was, for the next time.
    downloads: VecDeque<Download>,
    spare: VecDeque<Download>,
    /// The one that the caller looks at.
    shown: Option<Download>,
    /// For the next download to report.
    failure: Option<DeviceError>,
}

/// What becomes of an upload.
#[derive(Clone, Copy)]
enum Target {
    Numbers(Span),
    /// Images of so many bytes of photos.
    Images(Tensor, usize),
}

impl Cuda {
    /// GPU number `ordinal` for activations of `precision`, with the libraries of CUDA from
    /// `folder`, or from where the system has them.
    ///
    /// # Errors
    /// A library is missing, there is no such GPU, it does not have that precision, or it does not
    /// work.
    pub fn new(
        ordinal: usize,
        folder: Option<&Path>,
        precision: Precision,
    ) -> Result<Self, DeviceError> {
        let Found { gpu, compiler, cublas } = find(ordinal, folder)?;
        if precision != Precision::Fp32 && gpu.arch < REDUCED_PRECISION_MIN {
            let (major, minor) = (gpu.arch / 10, gpu.arch % 10);
            let problem = format!(
                "{} is of compute capability {major}.{minor}, and {precision} needs 8.0 or above: \
                 set precision = \"fp32\", or use another GPU",
                gpu.name
            );
            return Err(failed_on(&gpu, problem));
        }
        // Whoever asks for a GPU gets it; the claim keeps away those who take any.
        claim::claim(&gpu.uuid);
        let format = if precision == Precision::Bf16 { Format::Bf16 } else { Format::Full };
        let compiled = compiler.compile(&source::source(format));
        let compiled = compiled.map_err(|log| failed_on(&gpu, format!("the kernels: {log}")))?;
        let code = hw2_common::hex(&Sha256::digest(&compiled)[..8]);
        let cublas = Arc::new(cublas);
        let runtime = Runtime::new(&gpu, &cublas, compiled, precision);
        let runtime = runtime.map_err(|error| failed_on(&gpu, error))?;
        let cublas = cublas.version().map_err(|error| failed_on(&gpu, error))?;
        let limits = GpuKind::of(gpu.arch).limits();
        Ok(Self {
            gpu,
            runtime,
            code,
            cublas,
            limits,
            allocated: 0,
            routines: Vec::new(),
            staged: Vec::new(),
            downloads: VecDeque::new(),
            spare: VecDeque::new(),
            shown: None,
            failure: None,
        })
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
    fn attempt<T>(
        &mut self,
        work: impl FnOnce(&mut Runtime) -> Result<T, RuntimeError>,
    ) -> Option<T> {
        if self.failure.is_some() {
            return None;
        }
        let result = work(&mut self.runtime);
        result.map_err(|error| self.fail(error)).ok()
    }

    /// What is to be done for `op`, if that can be done.
    fn lower(&mut self, op: Op) -> Option<Lowering> {
        let lowered = lower(op, self.limits);
        lowered.map_err(|error| self.fail(error)).ok()
    }

    fn fail(&mut self, problem: impl ToString) {
        self.failure.get_or_insert(failed_on(&self.gpu, problem));
    }

    /// What went wrong so far.
    fn health(&self) -> Result<(), DeviceError> {
        self.failure.clone().map_or(Ok(()), Err)
    }

    /// The routine for `ops`, with the workspace that it needs.
    fn routine(&mut self, ops: &[Op]) -> usize {
        if let Some(index) = self.routines.iter().position(|routine| routine.is_for(ops)) {
            return index;
        }
        let mut launches = Vec::new();
        let mut workspace_bytes = 0;
        for op in ops {
            let Some(lowered) = self.lower(*op) else { continue };
            workspace_bytes = workspace_bytes.max(lowered.workspace_bytes);
            launches.push(lowered.launches);
        }
        self.reserve(workspace_bytes);
        if self.routines.len() == ROUTINES_MAX {
            self.routines.clear();
        }
        self.routines.push(Routine::new(ops, launches));
        self.routines.len() - 1
    }

    /// Puts the images of photos that were sent off into `images`.
    fn finish_photos(&mut self, upload: Upload, bytes: usize, images: Tensor) {
        let Some(photos) = self.attempt(|runtime| runtime.arrived(upload)) else { return };
        let mut lowering = Lowering::new(self.limits);
        augment::apply(&mut lowering, photos, bytes, images);
        self.reserve(lowering.workspace_bytes);
        self.attempt(|runtime| {
            runtime.launch_all(&lowering.launches)?;
            runtime.taken(upload)
        });
    }

    fn reserve(&mut self, workspace_bytes: usize) {
        let is_new = self.attempt(|runtime| runtime.reserve(workspace_bytes));
        if is_new == Some(true) {
            // The graphs have the address of the old one.
            self.routines.clear();
        }
    }
}

fn failed(ordinal: usize, problem: impl ToString) -> DeviceError {
    DeviceError { device: format!("GPU {ordinal}"), problem: problem.to_string() }
}

/// Also by what nvidia-smi calls it, for which its number may be another.
fn failed_on(Gpu { ordinal, uuid, .. }: &Gpu, problem: impl ToString) -> DeviceError {
    DeviceError { device: format!("GPU {ordinal} ({uuid})"), problem: problem.to_string() }
}

impl Device for Cuda {
    type Elem = f32;

    fn describe(&self) -> String {
        format!("GPU {}: {}", self.gpu.ordinal, self.gpu.name)
    }

    /// cuBLAS takes another kernel for other sizes, by its version and by the GPU's
    /// multiprocessors.
    fn kind(&self) -> String {
        let Gpu { arch, multiprocessors, .. } = self.gpu;
        let (code, [major, minor, patch], limits) = (&self.code, self.cublas, self.limits);
        format!(
            "sm_{arch}, {multiprocessors} multiprocessors, {code}, cuBLAS {major}.{minor}.{patch} \
             with sums in f32, {limits:?}"
        )
    }

    fn alloc(&mut self, requests: &[Request]) -> Vec<Buffer> {
        self.attempt(|runtime| runtime.alloc(&Arena::new(requests)));
        let first = self.allocated;
        self.allocated += requests.len();
        let numbered = (first..).zip(requests);
        numbered.map(|(number, request)| Buffer::numbered(number, request.format)).collect()
    }

    fn make_room(&mut self, ops: &[Op]) {
        let needs =
            ops.iter().filter_map(|op| self.lower(*op)).map(|lowered| lowered.workspace_bytes);
        let most = needs.max().unwrap_or(0);
        self.reserve(most);
    }

    fn upload(&mut self, target: Span, values: &[f32]) {
        self.attempt(|runtime| {
            let upload = runtime.stage(values)?;
            runtime.take(upload, target)
        });
    }

    fn download(&mut self, source: Span, values: &mut [f32]) -> Result<(), DeviceError> {
        self.attempt(|runtime| runtime.download(source, values));
        self.health()
    }

    fn finish(&mut self) -> Result<(), DeviceError> {
        self.attempt(Runtime::finish);
        self.health()
    }

    fn set_dropout(&mut self, coordinates: DropoutCoordinates) {
        self.attempt(|runtime| runtime.set_dropout(coordinates));
    }

    fn run(&mut self, op: Op) {
        let Some(lowered) = self.lower(op) else { return };
        self.reserve(lowered.workspace_bytes);
        self.attempt(|runtime| runtime.launch_all(&lowered.launches));
    }

    fn run_all(&mut self, ops: &[Op]) {
        let index = self.routine(ops);
        if self.failure.is_none() {
            let result = self.routines[index].run(&mut self.runtime);
            result.unwrap_or_else(|error| self.fail(error));
        }
    }
}

impl Pipeline for Cuda {
    fn stage(&mut self, target: Span, values: &[f32]) {
        if let Some(upload) = self.attempt(|runtime| runtime.stage(values)) {
            self.staged.push((upload, Target::Numbers(target)));
        }
    }

    fn stage_photos(&mut self, target: Tensor, photos: &[Photo]) {
        let bytes = augment::upload_bytes(photos);
        let write = |upload: &mut [u8]| augment::write_upload(photos, upload);
        if let Some(upload) = self.attempt(|runtime| runtime.stage_with(bytes, write)) {
            let images = target.first(photos.len());
            self.staged.push((upload, Target::Images(images, bytes)));
        }
    }

    fn finishes_photos(&self) -> bool {
        true
    }

    fn take_staged(&mut self) {
        for (upload, target) in std::mem::take(&mut self.staged) {
            match target {
                Target::Numbers(span) => {
                    self.attempt(|runtime| runtime.take(upload, span));
                }
                Target::Images(images, bytes) => self.finish_photos(upload, bytes, images),
            }
        }
    }

    fn begin(&mut self, segments: &[Segment]) {
        assert!(self.downloads.is_empty(), "what was made before has been taken");
        self.spare.extend(self.shown.take());
        for Segment { ops, made } in segments {
            if !ops.is_empty() {
                self.run_all(ops);
            }
            let spare = self.spare.iter().position(|spare| spare.len_max() >= made.len);
            let spare = spare.and_then(|index| self.spare.remove(index));
            let download = self.attempt(|runtime| {
                let mut download = match spare {
                    Some(download) => download,
                    None => runtime.new_download(made.len)?,
                };
                runtime.begin_download(*made, &mut download)?;
                Ok(download)
            });
            self.downloads.extend(download);
        }
    }

    fn next(&mut self) -> Result<&[f32], DeviceError> {
        self.spare.extend(self.shown.take());
        self.health()?;
        let download = self.downloads.pop_front().expect("a segment was begun");
        let shown = self.shown.insert(download);
        shown.wait().map_err(|error| failed_on(&self.gpu, RuntimeError::from(error)))
    }
}
