//! Finds the libraries of CUDA and loads them by full path, so that cudarc finds them loaded.
//!
//! libcuda is the driver's and of any version. libnvrtc and libcublas must be of a major version that
//! the driver runs and that knows the GPU; the newest such one is taken.

#![allow(unsafe_code)]

use std::ffi::c_int;
use std::path::{Path, PathBuf};

use libloading::Library;

/// Major versions of CUDA that we know, the newest first.
const MAJORS: [u32; 3] = [13, 12, 11];

/// A library of CUDA, as it is named in error messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    Cuda,
    Nvrtc,
    Cublas,
}

/// A loaded library.
pub(super) struct Found {
    pub(super) library: Library,
    /// Where it lies; its bare name if the system's loader found it.
    pub(super) path: PathBuf,
    /// Major version of CUDA; that of libcuda says nothing and is 0.
    pub(super) major: u32,
}

impl Found {
    /// Never unloads it: cudarc holds addresses of its functions.
    pub(super) fn keep(self) {
        std::mem::forget(self.library);
    }
}

/// No library of a version that would do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{file} {}is missing (looked in {}): {remedy}",
    wanted(.majors),
    places(.folders)
)]
pub(super) struct Missing {
    file: &'static str,
    majors: Vec<u32>,
    folders: Vec<PathBuf>,
    remedy: String,
}

fn wanted(majors: &[u32]) -> String {
    match majors.iter().map(u32::to_string).collect::<Vec<_>>() {
        none if none.is_empty() => String::new(),
        majors => format!("of CUDA {} ", majors.join(" or ")),
    }
}

fn places(folders: &[PathBuf]) -> String {
    let folders = folders.iter().map(|folder| folder.display().to_string());
    folders.collect::<Vec<_>>().join(", ")
}

impl Name {
    fn file(self) -> &'static str {
        match self {
            Self::Cuda => "libcuda.so",
            Self::Nvrtc => "libnvrtc.so",
            Self::Cublas => "libcublas.so",
        }
    }

    /// How to get it, of the first of `majors`.
    fn remedy(self, majors: &[u32]) -> String {
        let package = match self {
            Self::Cuda => return "install NVIDIA's driver, or use --device cpu".into(),
            Self::Nvrtc => "nvidia-cuda-nvrtc",
            Self::Cublas => "nvidia-cublas",
        };
        let suffix = match majors.first() {
            Some(major @ (11 | 12)) => format!("-cu{major}"),
            _ => String::new(),
        };
        format!("pip install {package}{suffix}, or name its folder by --cuda-lib-dir")
    }

    /// Names of the file for one major version; the name without one comes last.
    fn names(self, major: u32) -> Vec<String> {
        let file = self.file();
        match (self, major) {
            (Self::Cuda, _) => vec![format!("{file}.1"), file.into()],
            // All of 11.2 to 11.8 are called so.
            (Self::Nvrtc, 11) => vec![format!("{file}.11.2"), file.into()],
            _ => vec![format!("{file}.{major}"), file.into()],
        }
    }

    /// The major version of what was loaded.
    fn major(self, library: &Library) -> Option<u32> {
        type Version = unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int;
        type Property = unsafe extern "C" fn(c_int, *mut c_int) -> c_int;
        let (mut major, mut minor) = (0, 0);
        // SAFETY: the signatures are those of nvrtc.h and cublas_api.h; property 0 is the major version.
        let status = unsafe {
            match self {
                Self::Cuda => 0,
                Self::Nvrtc => {
                    library.get::<Version>(b"nvrtcVersion\0").ok()?(&mut major, &mut minor)
                }
                Self::Cublas => {
                    library.get::<Property>(b"cublasGetProperty\0").ok()?(0, &mut major)
                }
            }
        };
        (status == 0).then_some(major as u32)
    }
}

/// The major versions of CUDA that a driver (12,040 for CUDA 12.4) runs and that have code for a GPU of
/// compute capability `arch` (70 for 7.0), the newest first.
pub(super) fn majors(driver: i32, arch: u32) -> Vec<u32> {
    let knows = |major: u32| match major {
        11 => arch <= 90,
        12 => arch >= 50,
        _ => arch >= 75,
    };
    MAJORS.into_iter().filter(|major| *major as i32 <= driver / 1000 && knows(*major)).collect()
}

/// Where to look: in `folder` alone if there is one, else where CUDA is usually installed, and last
/// where the system's loader looks.
pub(super) fn folders(folder: Option<&Path>) -> Vec<PathBuf> {
    if let Some(folder) = folder {
        return vec![folder.into()];
    }
    let mut folders = Vec::new();
    let variable = |name| std::env::var_os(name).map(PathBuf::from);
    for root in [variable("CUDA_HOME"), variable("CUDA_PATH")].into_iter().flatten() {
        folders.push(root.join("lib64"));
    }
    folders.extend(children(Path::new("/usr/local"), "cuda").map(|root| root.join("lib64")));
    for root in [variable("VIRTUAL_ENV"), variable("CONDA_PREFIX")].into_iter().flatten() {
        for python in children(&root.join("lib"), "python") {
            let nvidia = python.join("site-packages/nvidia");
            folders
                .extend(["cu13", "cuda_nvrtc", "cublas"].map(|part| nvidia.join(part).join("lib")));
        }
        folders.push(root.join("lib"));
    }
    folders.push(PathBuf::new());
    folders
}

/// The entries of `folder` whose names begin with `prefix`, the last name first.
fn children(folder: &Path, prefix: &'static str) -> impl Iterator<Item = PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name()).collect();
    names.sort();
    let folder = folder.to_path_buf();
    let fits = move |name: &std::ffi::OsString| name.to_string_lossy().starts_with(prefix);
    names.into_iter().rev().filter(fits).map(move |name| folder.join(name))
}

/// Loads `name`, of one of `majors`, the first of them first, from one of `folders`. The driver's own
/// library may also be where the system's loader looks.
///
/// # Errors
/// There is none.
pub(super) fn load(name: Name, majors: &[u32], folders: &[PathBuf]) -> Result<Found, Missing> {
    let system = (name == Name::Cuda).then(PathBuf::new);
    for major in majors {
        for folder in folders.iter().chain(&system) {
            for file in name.names(*major) {
                let path = folder.join(file);
                // SAFETY: the libraries of CUDA may be loaded at any time; loading runs nothing else.
                let Ok(library) = (unsafe { Library::new(&path) }) else { continue };
                match name.major(&library) {
                    Some(found) if name == Name::Cuda || found == *major => {
                        return Ok(Found { library, path, major: found });
                    }
                    _ => {}
                }
            }
        }
    }
    Err(Missing {
        file: name.file(),
        majors: if name == Name::Cuda { Vec::new() } else { majors.to_vec() },
        folders: folders.iter().map(|folder| named(folder)).collect(),
        remedy: name.remedy(majors),
    })
}

fn named(folder: &Path) -> PathBuf {
    if folder.as_os_str().is_empty() { "the loader's path".into() } else { folder.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_follows_driver_and_gpu() {
        // (driver, arch, majors)
        let cases: [(i32, u32, &[u32]); 7] = [
            (11_040, 37, &[11]),
            (12_040, 37, &[11]),
            (12_040, 70, &[12, 11]),
            (13_000, 70, &[12, 11]),
            (13_000, 90, &[13, 12, 11]),
            (13_000, 100, &[13, 12]),
            (11_040, 120, &[]),
        ];
        for (driver, arch, expected) in cases {
            assert_eq!(majors(driver, arch), expected, "driver {driver}, sm_{arch}");
        }
    }

    #[test]
    fn what_is_missing_is_named_with_where_it_was_sought_and_how_to_get_it() {
        let folder = tempfile::tempdir().unwrap();
        let folders = folders(Some(folder.path()));
        let error = load(Name::Nvrtc, &[12, 11], &folders).err().unwrap().to_string();
        for part in
            ["libnvrtc.so of CUDA 12 or 11", &folder.path().display().to_string(), "pip install"]
        {
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_library_is_found_by_the_name_of_its_version_and_by_its_plain_name() {
        let folders = folders(Some(hw2_softgpu::libraries()));
        for name in [Name::Cuda, Name::Nvrtc, Name::Cublas] {
            let found = load(name, &[12, 11], &folders).ok().unwrap();
            assert_eq!(found.path, hw2_softgpu::libraries().join(name.file()));
            assert_eq!(found.major, if name == Name::Cuda { 0 } else { 11 });
        }
        assert!(load(Name::Cublas, &[12], &folders).is_err(), "another version");
    }
}
