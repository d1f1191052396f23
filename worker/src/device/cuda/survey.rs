//! What this machine has of CUDA, and what a worker would take: for `hw2 doctor`, and for the
//! choice.

use std::path::Path;

use serde::Serialize;

use super::compiler::Compiler;
use super::cublas::Cublas;
use super::driver::{Driver, Gpu};
use super::library;
use super::{claim, failed};
use crate::device::DeviceError;

/// The oldest driver that has all functions that we call: that of a K80.
const DRIVER_MIN: i32 = 11_040;

/// Why a GPU is not free.
const TAKEN: &str = "another worker computes on it";

/// What this machine has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Survey {
    /// The newest CUDA that the driver runs, as 12.4; or why there is no driver.
    pub driver: Result<String, String>,
    /// Its GPUs, in the order of their numbers.
    pub gpus: Vec<GpuSurvey>,
    /// Of each GPU that does not even tell its name: its number and why.
    pub failing: Vec<String>,
    /// The GPU that `--device auto` would take, or why it would take the CPU.
    pub auto: Result<usize, String>,
}

/// One GPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GpuSurvey {
    /// Its number.
    pub ordinal: usize,
    /// Its name.
    pub name: String,
    /// As nvidia-smi writes it.
    pub uuid: String,
    /// Compute capability, as 7.0.
    pub compute_capability: String,
    /// Its memory.
    pub memory_bytes: usize,
    /// Whether another process of ours computes on it.
    pub is_taken: bool,
    /// Path of the compiler's library for it, or what is missing.
    pub nvrtc: Result<String, String>,
    /// Path of the library of matrix products for it, or what is missing.
    pub cublas: Result<String, String>,
}

/// A GPU and its libraries.
pub(super) struct Found {
    pub(super) gpu: Gpu,
    pub(super) compiler: Compiler,
    pub(super) cublas: Cublas,
}

/// GPU number `ordinal` and its libraries.
///
/// # Errors
/// What is missing.
pub(super) fn find(ordinal: usize, folder: Option<&Path>) -> Result<Found, DeviceError> {
    let driver = driver(folder).map_err(|problem| failed(ordinal, problem))?;
    if ordinal >= driver.gpus {
        let last = driver.gpus - 1;
        let problem =
            format!("there is no such GPU: they are numbered from 0 to {last}{}", hidden());
        return Err(failed(ordinal, problem));
    }
    let gpu = driver.gpu(ordinal).map_err(|error| failed(ordinal, error))?;
    let compiler = compiler(&driver, &gpu, folder);
    let compiler = compiler.map_err(|missing| failed(ordinal, missing))?;
    let cublas = cublas(&driver, &gpu, folder).map_err(|missing| failed(ordinal, missing))?;
    Ok(Found { gpu, compiler, cublas })
}

/// The first GPU that works and that no other process of ours computes on, which this process
/// claims.
///
/// # Errors
/// Why there is none.
pub(crate) fn first_free(folder: Option<&Path>) -> Result<usize, DeviceError> {
    let none = |problem| DeviceError { device: "no GPU".into(), problem };
    let driver = driver(folder).map_err(none)?;
    let mut problems = Vec::new();
    for ordinal in 0..driver.gpus {
        match find(ordinal, folder) {
            Ok(found) if claim::claim(&found.gpu.uuid) => return Ok(ordinal),
            Ok(_) => problems.push(format!("GPU {ordinal}: {TAKEN}")),
            Err(error) => problems.push(error.to_string()),
        }
    }
    Err(none(problems.join("; ")))
}

/// The driver, with a GPU at least; or what is missing.
fn driver(folder: Option<&Path>) -> Result<Driver, String> {
    library::load_driver(folder)?;
    let driver = Driver::new().map_err(|error| format!("the driver fails: {error}"))?;
    if driver.version < DRIVER_MIN {
        let version = version(driver.version);
        return Err(format!(
            "the driver runs CUDA {version}, and 11.4 is needed: update the driver"
        ));
    }
    match driver.gpus {
        0 => Err(format!("the driver sees no GPU{}: use --device cpu", hidden())),
        _ => Ok(driver),
    }
}

/// As people write it.
fn version(driver: i32) -> String {
    format!("{}.{}", driver / 1000, driver % 1000 / 10)
}

/// What may be the reason why a GPU is not there.
fn hidden() -> String {
    let visible = std::env::var("CUDA_VISIBLE_DEVICES");
    visible.map_or_else(|_| String::new(), |value| format!(" (CUDA_VISIBLE_DEVICES is `{value}`)"))
}

/// The versions of CUDA that the driver runs and that know the GPU; or that there is none.
fn majors(driver: &Driver, gpu: &Gpu) -> Result<Vec<u32>, String> {
    let majors = library::majors(driver.version, gpu.arch);
    match majors.is_empty() {
        false => Ok(majors),
        true => Err(format!(
            "the driver runs CUDA {} and older, of which none knows a GPU of compute capability {}: \
             update the driver",
            version(driver.version),
            capability(gpu.arch)
        )),
    }
}

fn compiler(driver: &Driver, gpu: &Gpu, folder: Option<&Path>) -> Result<Compiler, String> {
    let found = Compiler::find(gpu.arch, &majors(driver, gpu)?, &library::folders(folder));
    found.map_err(|missing| missing.to_string())
}

fn cublas(driver: &Driver, gpu: &Gpu, folder: Option<&Path>) -> Result<Cublas, String> {
    let found = Cublas::find(gpu.arch, &majors(driver, gpu)?, &library::folders(folder));
    found.map_err(|missing| missing.to_string())
}

/// As people write it.
fn capability(arch: u32) -> String {
    format!("{}.{}", arch / 10, arch % 10)
}

/// Looks, and takes nothing.
pub fn survey(folder: Option<&Path>) -> Survey {
    let driver = match driver(folder) {
        Ok(driver) => driver,
        Err(problem) => {
            let (gpus, failing) = (Vec::new(), Vec::new());
            return Survey { driver: Err(problem.clone()), gpus, failing, auto: Err(problem) };
        }
    };
    let (mut gpus, mut failing) = (Vec::new(), Vec::new());
    for ordinal in 0..driver.gpus {
        match driver.gpu(ordinal) {
            Ok(gpu) => gpus.push(one(&driver, &gpu, folder)),
            Err(error) => failing.push(failed(ordinal, error).to_string()),
        }
    }
    let problem = |gpu: &GpuSurvey| {
        let missing = gpu.nvrtc.as_ref().err().or(gpu.cublas.as_ref().err());
        let taken = gpu.is_taken.then(|| TAKEN.to_owned());
        missing.cloned().or(taken).map(|problem| format!("GPU {}: {problem}", gpu.ordinal))
    };
    let free = gpus.iter().find(|gpu| problem(gpu).is_none()).map(|gpu| gpu.ordinal);
    let problems = || {
        let problems = gpus.iter().filter_map(problem).chain(failing.iter().cloned());
        problems.collect::<Vec<_>>().join("; ")
    };
    let auto = free.ok_or_else(problems);
    Survey { driver: Ok(version(driver.version)), auto, gpus, failing }
}

fn one(driver: &Driver, gpu: &Gpu, folder: Option<&Path>) -> GpuSurvey {
    let nvrtc = compiler(driver, gpu, folder).map(|found| {
        let (path, Compiler { major, arch, .. }) = (found.path.display(), &found);
        match *arch == gpu.arch {
            true => format!("{path} (CUDA {major})"),
            false => format!("{path} (CUDA {major}, compiles for sm_{arch}, which runs there too)"),
        }
    });
    let cublas = cublas(driver, gpu, folder);
    GpuSurvey {
        ordinal: gpu.ordinal,
        name: gpu.name.clone(),
        uuid: gpu.uuid.clone(),
        compute_capability: capability(gpu.arch),
        memory_bytes: gpu.memory_bytes,
        is_taken: claim::is_taken(&gpu.uuid),
        nvrtc,
        cublas: cublas.map(|found| format!("{} (CUDA {})", found.path.display(), found.major)),
    }
}
