//! What this machine has of CUDA, and what a worker would take: for `hw2 doctor`, and for the choice.

use std::path::Path;

use serde::Serialize;

use super::driver::{Driver, Gpu};
use super::library::{self, Name};
use super::nvrtc::Nvrtc;
use super::runtime::cublas_major;
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

/// A GPU and the compiler for it. libcublas is loaded.
pub(super) struct Found {
    pub(super) gpu: Gpu,
    pub(super) nvrtc: Nvrtc,
}

/// GPU number `ordinal` and its libraries.
///
/// # Errors
/// What is missing.
pub(super) fn find(ordinal: usize, folder: Option<&Path>) -> Result<Found, DeviceError> {
    let driver = driver(folder).map_err(|problem| failed(ordinal, problem))?;
    if ordinal >= driver.gpus {
        let last = driver.gpus - 1;
        let problem = format!("there is no such GPU: they are numbered from 0 to {last}");
        return Err(failed(ordinal, problem));
    }
    let gpu = driver.gpu(ordinal).map_err(|error| failed(ordinal, error))?;
    let nvrtc = library_for(Name::Nvrtc, &driver, &gpu, folder);
    let nvrtc = nvrtc.map_err(|missing| failed(ordinal, missing))?;
    let cublas = library_for(Name::Cublas, &driver, &gpu, folder);
    let cublas = cublas.map_err(|missing| failed(ordinal, missing))?;
    let (chosen, path) = (cublas.major, cublas.path.clone());
    cublas.keep();
    match cublas_major().map_err(|error| failed(ordinal, error))? {
        used if used == chosen => {}
        used => {
            let path = path.display();
            let problem = format!(
                "the loader finds libcublas.so of CUDA {used} before {path}, of CUDA {chosen}, which \
                 the GPU needs: take the other one off LD_LIBRARY_PATH"
            );
            return Err(failed(ordinal, problem));
        }
    }
    let nvrtc = Nvrtc::new(nvrtc.library).map_err(|error| failed(ordinal, error))?;
    Ok(Found { gpu, nvrtc })
}

/// The first GPU that works and that no other process of ours computes on, which this process claims.
///
/// # Errors
/// Why there is none.
pub(crate) fn first_free(folder: Option<&Path>) -> Result<usize, DeviceError> {
    let none = |problem| DeviceError { device: "no GPU".into(), problem };
    let driver = driver(folder).map_err(none)?;
    let mut problems = Vec::new();
    for ordinal in 0..driver.gpus {
        match find(ordinal, folder) {
            Ok(found) if claim::claim(&found.gpu.id) => return Ok(ordinal),
            Ok(_) => problems.push(format!("GPU {ordinal}: {TAKEN}")),
            Err(error) => problems.push(error.to_string()),
        }
    }
    Err(none(problems.join("; ")))
}

/// The driver, with a GPU at least; or what is missing.
fn driver(folder: Option<&Path>) -> Result<Driver, String> {
    let library = library::load(Name::Cuda, &[0], &library::folders(folder));
    library.map_err(|missing| missing.to_string())?.keep();
    let driver = Driver::new().map_err(|error| format!("the driver fails: {error}"))?;
    if driver.version < DRIVER_MIN {
        let version = version(driver.version);
        return Err(format!(
            "the driver runs CUDA {version}, and 11.4 is needed: update the driver"
        ));
    }
    match driver.gpus {
        0 => Err("the driver sees no GPU: use --device cpu".into()),
        _ => Ok(driver),
    }
}

/// As people write it.
fn version(driver: i32) -> String {
    format!("{}.{}", driver / 1000, driver % 1000 / 10)
}

fn library_for(
    name: Name,
    driver: &Driver,
    gpu: &Gpu,
    folder: Option<&Path>,
) -> Result<library::Found, library::Missing> {
    let majors = library::majors(driver.version, gpu.arch);
    library::load(name, &majors, &library::folders(folder))
}

/// Looks, and takes nothing.
pub fn survey(folder: Option<&Path>) -> Survey {
    let driver = match driver(folder) {
        Ok(driver) => driver,
        Err(problem) => {
            return Survey { driver: Err(problem.clone()), gpus: Vec::new(), auto: Err(problem) };
        }
    };
    let gpus = (0..driver.gpus).filter_map(|ordinal| driver.gpu(ordinal).ok());
    let gpus: Vec<GpuSurvey> = gpus.map(|gpu| one(&driver, &gpu, folder)).collect();
    let problem = |gpu: &GpuSurvey| {
        let missing = gpu.nvrtc.as_ref().err().or(gpu.cublas.as_ref().err());
        let taken = gpu.is_taken.then(|| TAKEN.to_owned());
        missing.cloned().or(taken).map(|problem| format!("GPU {}: {problem}", gpu.ordinal))
    };
    let free = gpus.iter().find(|gpu| problem(gpu).is_none()).map(|gpu| gpu.ordinal);
    let problems = || gpus.iter().filter_map(problem).collect::<Vec<_>>().join("; ");
    let auto = free.ok_or_else(problems);
    Survey { driver: Ok(version(driver.version)), auto, gpus }
}

fn one(driver: &Driver, gpu: &Gpu, folder: Option<&Path>) -> GpuSurvey {
    let path = |name| match library_for(name, driver, gpu, folder) {
        Ok(found) => Ok(format!("{} (CUDA {})", found.path.display(), found.major)),
        Err(missing) => Err(missing.to_string()),
    };
    GpuSurvey {
        ordinal: gpu.ordinal,
        name: gpu.name.clone(),
        compute_capability: format!("{}.{}", gpu.arch / 10, gpu.arch % 10),
        memory_bytes: gpu.memory_bytes,
        is_taken: claim::is_taken(&gpu.id),
        nvrtc: path(Name::Nvrtc),
        cublas: path(Name::Cublas),
    }
}
