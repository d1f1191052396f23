//! Finds the libraries of CUDA and loads them by full path.
//!
//! libcuda is the driver's and of any version; cudarc calls it, and finds it loaded. libnvrtc and
//! libcublas must be of a major version that the driver runs and that knows the GPU; the newest
//! such one is taken, and called as it was found.

#![allow(unsafe_code)]

use std::ffi::{c_int, c_uint};
use std::mem::ManuallyDrop;
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

/// No library that would do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{wanted} is missing (looked in {places}): {remedy}")]
pub(super) struct Missing {
    wanted: String,
    places: String,
    remedy: String,
}

impl Missing {
    /// None of `majors` in `folders`.
    pub(super) fn new(name: Name, majors: &[u32], folders: &[PathBuf]) -> Self {
        let file = name.file();
        let wanted = match name {
            Name::Cuda => file.to_owned(),
            _ => format!("{file} of CUDA {}", list(majors, " or ")),
        };
        let folders = folders.iter().map(|folder| match folder.as_os_str().is_empty() {
            true => "the loader's path".to_owned(),
            false => folder.display().to_string(),
        });
        let places = folders.collect::<Vec<_>>().join(", ");
        Self { wanted, places, remedy: name.remedy(majors) }
    }

    /// None for GPUs of compute capability `arch`, though there are `unfit` ones, of which it is
    /// said what is wrong with them.
    pub(super) fn for_arch(self, arch: u32, unfit: Vec<String>) -> Self {
        let wanted = format!("{} for sm_{arch}", self.wanted);
        let places = std::iter::once(self.places).chain(unfit).collect::<Vec<_>>().join("; ");
        Self { wanted, places, ..self }
    }
}

pub(super) fn list(numbers: &[u32], separator: &str) -> String {
    numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(separator)
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
        format!("pip install -U {package}{suffix}, or name its folder by --cuda-lib-dir")
    }

    /// Names of the file for one major version; the name without one comes last.
    fn names(self, major: u32) -> Vec<String> {
        let file = self.file();
        match (self, major) {
            // As cudarc asks for it.
            (Self::Cuda, _) => vec![file.into(), format!("{file}.1")],
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
        // SAFETY: the signatures are those of nvrtc.h and cublas_api.h; property 0 is the major
        // version.
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

/// The major versions of CUDA that a driver (12,040 for CUDA 12.4) runs and that have code for a
/// GPU of compute capability `arch` (70 for 7.0), the newest first.
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
    match folder {
        Some(folder) => vec![folder.into()],
        None => usual(Path::new("/"), |name| std::env::var_os(name).map(PathBuf::from)),
    }
}

/// Where CUDA is usually installed, given what `variable` says of the environment: by NVIDIA's
/// installers, then by pip and conda for this environment, this user, and this machine.
fn usual(root: &Path, variable: impl Fn(&str) -> Option<PathBuf>) -> Vec<PathBuf> {
    let named = |names: [&str; 2]| names.into_iter().filter_map(&variable).collect::<Vec<_>>();
    let local = root.join("usr/local");
    let toolkits = children(&local, "cuda");
    let toolkits = named(["CUDA_HOME", "CUDA_PATH"]).into_iter().chain(toolkits);
    let mut folders: Vec<PathBuf> = toolkits.map(|toolkit| toolkit.join("lib64")).collect();
    for environment in named(["VIRTUAL_ENV", "CONDA_PREFIX"]) {
        folders.extend(wheels(&environment.join("lib")));
        folders.push(environment.join("lib"));
    }
    let user = variable("HOME").map(|home| home.join(".local/lib"));
    let machine = ["usr/local/lib", "usr/lib", "usr/lib64"].map(|lib| root.join(lib));
    folders.extend(user.into_iter().chain(machine).flat_map(|lib| wheels(&lib)));
    folders.push(PathBuf::new());
    folders
}

/// The folders of NVIDIA's Python packages below `lib`. CUDA 13 has one for all.
fn wheels(lib: &Path) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    for python in children(lib, "python") {
        for packages in ["site-packages", "dist-packages"] {
            for part in ["cu13", "cuda_nvrtc", "cublas"] {
                folders.push(python.join(packages).join("nvidia").join(part).join("lib"));
            }
        }
    }
    folders.retain(|folder| folder.is_dir());
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

/// Loads the driver's library for good, from `folder` if it is there, else from where the system's
/// loader looks.
///
/// # Errors
/// There is none, or what cudarc calls is another one.
pub(super) fn load_driver(folder: Option<&Path>) -> Result<(), String> {
    let folders: Vec<PathBuf> =
        folder.map(Path::to_path_buf).into_iter().chain([PathBuf::new()]).collect();
    let found = candidates(Name::Cuda, &[0], &folders).next();
    let found = found.ok_or_else(|| Missing::new(Name::Cuda, &[0], &folders).to_string())?;
    let path = found.path.display().to_string();
    // It is never unloaded: cudarc holds addresses of its functions.
    match is_cudarcs(&ManuallyDrop::new(found.library)) {
        true => Ok(()),
        false => Err(format!(
            "the loader finds a libcuda.so before {path}: put the folder of that first on \
             LD_LIBRARY_PATH, or leave --cuda-lib-dir out"
        )),
    }
}

/// Whether `library` is the libcuda that cudarc calls: the first that the loader knows by a name.
fn is_cudarcs(library: &Library) -> bool {
    type Init = unsafe extern "C" fn(c_uint) -> c_int;
    let init = b"cuInit\0";
    // SAFETY: the functions are compared, and not called.
    unsafe {
        let address = |function: Init| function as usize;
        let ours = library.get::<Init>(init).map(|init| address(*init));
        // Without this question it would panic where there is none.
        let theirs = cudarc::driver::sys::is_culib_present()
            .then(|| cudarc::driver::sys::culib().get::<Init>(init).map(|init| address(*init)));
        matches!((ours, theirs), (Ok(ours), Some(Ok(theirs))) if ours == theirs)
    }
}

/// All of `name` that there are of `majors`, the first of them first, in `folders`, each loaded when
/// its turn comes.
pub(super) fn candidates(
    name: Name,
    majors: &[u32],
    folders: &[PathBuf],
) -> impl Iterator<Item = Found> {
    let folders = folders.to_vec();
    let paths = majors.iter().flat_map(move |major| {
        let names = name.names(*major);
        let in_folder = |folder: &PathBuf| names.iter().map(|file| folder.join(file)).collect();
        let paths: Vec<Vec<PathBuf>> = folders.iter().map(in_folder).collect();
        paths.into_iter().flatten().map(|path| (*major, path))
    });
    paths.filter_map(move |(major, path)| {
        // The system's loader answers for a path under which it has loaded something, though the
        // file is gone. What has no folder it has to look for itself.
        if path.components().nth(1).is_some() && !path.exists() {
            return None;
        }
        // SAFETY: the libraries of CUDA may be loaded at any time; loading runs nothing else.
        let library = unsafe { Library::new(&path) }.ok()?;
        let found = name.major(&library)?;
        let fits = name == Name::Cuda || found == major;
        fits.then_some(Found { library, path, major: found })
    })
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
        let error = Missing::new(Name::Nvrtc, &[12, 11], &folders).to_string();
        for part in
            ["libnvrtc.so of CUDA 12 or 11", &folder.path().display().to_string(), "pip install"]
        {
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn libraries_are_sought_where_installers_and_pip_put_them() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        // In the order in which they are taken.
        let places = [
            "opt/cuda/lib64",
            "usr/local/cuda-12.4/lib64",
            "usr/local/cuda/lib64",
            "venv/lib/python3.12/site-packages/nvidia/cu13/lib",
            "venv/lib/python3.12/site-packages/nvidia/cuda_nvrtc/lib",
            "home/.local/lib/python3.11/site-packages/nvidia/cuda_nvrtc/lib",
            "usr/local/lib/python3.11/dist-packages/nvidia/cublas/lib",
            "usr/lib/python3/dist-packages/nvidia/cuda_nvrtc/lib",
            "usr/lib64/python3.9/site-packages/nvidia/cuda_nvrtc/lib",
        ]
        .map(|place| root.join(place));
        for place in &places {
            std::fs::create_dir_all(place).unwrap();
        }
        let variable = |name: &str| match name {
            "CUDA_HOME" => Some(root.join("opt/cuda")),
            "VIRTUAL_ENV" => Some(root.join("venv")),
            "HOME" => Some(root.join("home")),
            _ => None,
        };
        let mut found = usual(root, variable);
        assert_eq!(found.pop(), Some(PathBuf::new()), "the system's loader comes last");
        found.retain(|folder| *folder != root.join("venv/lib"));
        assert_eq!(found, places);
        for place in &places {
            let library = hw2_softgpu::libraries().join("libnvrtc.so");
            let link = place.join("libnvrtc.so.11.2");
            std::os::unix::fs::symlink(library, &link).unwrap();
            let mut candidates = candidates(Name::Nvrtc, &[12, 11], &found);
            assert_eq!(candidates.next().unwrap().path, link);
            std::fs::remove_file(link).unwrap();
        }
    }

    #[test]
    fn a_library_is_found_by_the_name_of_its_version_and_by_its_plain_name() {
        let plain = tempfile::tempdir().unwrap();
        for name in [Name::Cuda, Name::Nvrtc, Name::Cublas] {
            let versioned = hw2_softgpu::libraries().join(&name.names(11)[0]);
            let link = plain.path().join(name.file());
            std::os::unix::fs::symlink(&versioned, &link).unwrap();
            for path in [versioned, link] {
                let found = candidates(name, &[12, 11], &folders(path.parent())).next().unwrap();
                assert_eq!(found.path, path);
                assert_eq!(found.major, if name == Name::Cuda { 0 } else { 11 });
            }
        }
        let folders = folders(Some(hw2_softgpu::libraries()));
        assert!(candidates(Name::Cublas, &[12], &folders).next().is_none(), "another version");
    }
}
