//! The compiler of CUDA that knows a GPU, and what it makes of our kernels.

use std::path::PathBuf;

use super::cache::{Cache, Key};
use super::library::{self, Missing, Name};
use super::nvrtc::Nvrtc;

/// Those of boards with a Tegra, whose code runs on no other GPU, nor that of others on them.
const TEGRA: [u32; 6] = [53, 62, 72, 87, 101, 110];

/// libnvrtc for one kind of GPU.
pub(super) struct Compiler {
    nvrtc: Nvrtc,
    /// Where it lies; its bare name if the system's loader found it.
    pub(super) path: PathBuf,
    /// Major version of CUDA.
    pub(super) major: u32,
    /// What it compiles for: the GPU's compute capability, or one whose code the GPU runs too.
    pub(super) arch: u32,
}

impl Compiler {
    /// The first libnvrtc of `majors`, the first of them first, in `folders`, that can compile for
    /// a GPU of compute capability `arch`.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn find(arch: u32, majors: &[u32], folders: &[PathBuf]) -> Result<Self, Missing> {
        let mut unfit = Vec::new();
        for found in library::candidates(Name::Nvrtc, majors, folders) {
            let (path, major) = (found.path, found.major);
            // One that is too old to say what it knows lacks more than that.
            let Ok(nvrtc) = Nvrtc::new(found.library) else { continue };
            let Ok(known) = nvrtc.archs() else { continue };
            match target(arch, &known) {
                Some(arch) => return Ok(Self { nvrtc, path, major, arch }),
                None => {
                    let (path, known) = (path.display(), library::list(&known, ", "));
                    unfit.push(format!("{path} compiles for sm_{known}"));
                }
            }
        }
        let missing = Missing::new(Name::Nvrtc, majors, folders);
        Err(missing.for_arch(arch, unfit))
    }

    /// `source` as code for the GPU, compiled now or at an earlier start.
    ///
    /// # Errors
    /// What the compiler says.
    pub(super) fn compile(&self, source: &str) -> Result<Vec<u8>, String> {
        let options = Nvrtc::options(self.arch, &[]);
        let version = self.nvrtc.version()?;
        let key = Key { source, options: &options, version, compiler: &self.path };
        let compile = || Ok(self.nvrtc.compile(source, self.arch, &[])?.code);
        Cache::of_user().get(&key, compile)
    }
}

/// Which of the `known` ones to compile for, so that the code runs on a GPU of compute capability
/// `arch`: that itself, or the newest one of the same major version that is not newer.
fn target(arch: u32, known: &[u32]) -> Option<u32> {
    if known.contains(&arch) {
        return Some(arch);
    }
    let runs = |known: &u32| known / 10 == arch / 10 && *known < arch && !TEGRA.contains(known);
    let fitting = known.iter().copied().filter(runs).max();
    fitting.filter(|_| !TEGRA.contains(&arch))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_for_the_gpu_or_for_an_older_one_of_its_major_version() {
        let cuda_11_7 = [35, 37, 50, 52, 53, 60, 61, 62, 70, 72, 75, 80, 86, 87];
        let cuda_12_9 = [50, 52, 60, 61, 70, 75, 80, 86, 89, 90, 100, 101, 120];
        let cases: [(u32, &[u32], Option<u32>); 9] = [
            (37, &cuda_11_7, Some(37)),
            // Not 87.
            (89, &cuda_11_7, Some(86)),
            (87, &[80, 86], None),
            (90, &cuda_11_7, None),
            (37, &cuda_12_9, None),
            (103, &cuda_12_9, Some(100)),
            (121, &cuda_12_9, Some(120)),
            (101, &cuda_12_9, Some(101)),
            (80, &[], None),
        ];
        for (arch, known, expected) in cases {
            assert_eq!(target(arch, known), expected, "sm_{arch}");
        }
    }

    #[test]
    fn a_compiler_that_does_not_know_the_gpu_is_named_with_what_it_knows() {
        let folders = library::folders(Some(hw2_softgpu::libraries()));
        let compiler = Compiler::find(88, &[12, 11], &folders).ok().unwrap();
        assert_eq!((compiler.major, compiler.arch), (11, 86));
        assert_eq!(compiler.path, hw2_softgpu::libraries().join("libnvrtc.so.11.2"));
        let error = Compiler::find(30, &[11], &folders).err().unwrap().to_string();
        for part in ["libnvrtc.so of CUDA 11 for sm_30", "compiles for sm_35, 37, 50"] {
            assert!(error.contains(part), "{error}");
        }
    }
}
