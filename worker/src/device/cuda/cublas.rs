//! The functions of libcublas, of the library that was chosen for the GPU.
//!
//! Types and status codes are cudarc's. Its functions are those of whatever `libcublas.so` the
//! system's loader finds first, which may be for another kind of GPU.

#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::mem::ManuallyDrop;
use std::path::PathBuf;

use cudarc::cublas::result::CublasError;
use cudarc::cublas::sys::{
    cublasAtomicsMode_t, cublasComputeType_t, cublasGemmAlgo_t, cublasHandle_t, cublasMath_t,
    cublasOperation_t, cublasStatus_t, cudaDataType_t, libraryPropertyType,
};
use cudarc::driver::sys::CUstream;
use libloading::Library;

use super::library::{self, Missing, Name};

/// The first versions of libcublas with code for GPUs from a compute capability on; older GPUs have
/// it in all. CUDA 11.8 has 11.11. Code for 8.0 runs on 8.9, and so on.
const FIRST: [(u32, [u32; 2]); 2] = [(100, [12, 8]), (90, [11, 11])];

/// Functions of libcublas, alike in all its versions from CUDA 11 on.
pub(super) struct Cublas {
    pub(super) create: unsafe extern "C" fn(*mut cublasHandle_t) -> cublasStatus_t,
    pub(super) destroy: unsafe extern "C" fn(cublasHandle_t) -> cublasStatus_t,
    pub(super) set_stream: unsafe extern "C" fn(cublasHandle_t, CUstream) -> cublasStatus_t,
    pub(super) set_workspace:
        unsafe extern "C" fn(cublasHandle_t, *mut c_void, usize) -> cublasStatus_t,
    pub(super) set_atomics_mode:
        unsafe extern "C" fn(cublasHandle_t, cublasAtomicsMode_t) -> cublasStatus_t,
    pub(super) set_math_mode: unsafe extern "C" fn(cublasHandle_t, cublasMath_t) -> cublasStatus_t,
    pub(super) sgemm: unsafe extern "C" fn(
        cublasHandle_t,
        cublasOperation_t,
        cublasOperation_t,
        c_int,
        c_int,
        c_int,
        *const f32,
        *const f32,
        c_int,
        *const f32,
        c_int,
        *const f32,
        *mut f32,
        c_int,
    ) -> cublasStatus_t,
    pub(super) gemm_ex: unsafe extern "C" fn(
        cublasHandle_t,
        cublasOperation_t,
        cublasOperation_t,
        c_int,
        c_int,
        c_int,
        *const c_void,
        *const c_void,
        cudaDataType_t,
        c_int,
        *const c_void,
        cudaDataType_t,
        c_int,
        *const c_void,
        *mut c_void,
        cudaDataType_t,
        c_int,
        cublasComputeType_t,
        cublasGemmAlgo_t,
    ) -> cublasStatus_t,
    property: unsafe extern "C" fn(libraryPropertyType, *mut c_int) -> cublasStatus_t,
    /// Where it lies; its bare name if the system's loader found it.
    pub(super) path: PathBuf,
    /// Major version of CUDA.
    pub(super) major: u32,
    /// What the functions are of. It is never unloaded, since it may have told the driver of its
    /// code.
    _library: ManuallyDrop<Library>,
}

impl Cublas {
    /// The first libcublas of `majors`, the first of them first, in `folders`, that has code for a
    /// GPU of compute capability `arch`.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn find(arch: u32, majors: &[u32], folders: &[PathBuf]) -> Result<Self, Missing> {
        let mut unfit = Vec::new();
        for found in library::candidates(Name::Cublas, majors, folders) {
            let path = found.path.display().to_string();
            match Self::new(found) {
                Ok(cublas) => match cublas.version() {
                    Ok(version) if has_code(version, arch) => return Ok(cublas),
                    Ok([major, minor, patch]) => {
                        unfit.push(format!("{path} is {major}.{minor}.{patch}, which is too old"));
                    }
                    Err(error) => unfit.push(format!("{path} does not tell its version: {error}")),
                },
                Err(error) => unfit.push(format!("{path} is incomplete: {error}")),
            }
        }
        let missing = Missing::new(Name::Cublas, majors, folders);
        Err(if unfit.is_empty() { missing } else { missing.for_arch(arch, unfit) })
    }

    fn new(found: library::Found) -> Result<Self, libloading::Error> {
        let library::Found { library, path, major } = found;
        // SAFETY: the signatures are those of cublas_api.h, where names without a suffix are
        // macros for these.
        unsafe {
            Ok(Self {
                create: *library.get(b"cublasCreate_v2\0")?,
                destroy: *library.get(b"cublasDestroy_v2\0")?,
                set_stream: *library.get(b"cublasSetStream_v2\0")?,
                set_workspace: *library.get(b"cublasSetWorkspace_v2\0")?,
                set_atomics_mode: *library.get(b"cublasSetAtomicsMode\0")?,
                set_math_mode: *library.get(b"cublasSetMathMode\0")?,
                sgemm: *library.get(b"cublasSgemm_v2\0")?,
                gemm_ex: *library.get(b"cublasGemmEx\0")?,
                property: *library.get(b"cublasGetProperty\0")?,
                path,
                major,
                _library: ManuallyDrop::new(library),
            })
        }
    }

    /// Its version: major, minor, patch.
    pub(super) fn version(&self) -> Result<[u32; 3], CublasError> {
        use libraryPropertyType::{MAJOR_VERSION, MINOR_VERSION, PATCH_LEVEL};
        let property = |property| {
            let mut value = 0;
            // SAFETY: it writes one int.
            unsafe { (self.property)(property, &mut value) }.result()?;
            Ok(value as u32)
        };
        let [major, minor, patch] = [MAJOR_VERSION, MINOR_VERSION, PATCH_LEVEL].map(property);
        Ok([major?, minor?, patch?])
    }
}

fn has_code([major, minor, _]: [u32; 3], arch: u32) -> bool {
    let first = FIRST.iter().find(|(from, _)| arch >= *from);
    first.is_none_or(|(_, version)| [major, minor] >= *version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_gpus_need_new_libraries() {
        for (version, arch, has) in [
            ([11, 0, 0], 37, true),
            ([11, 6, 1], 89, true),
            ([11, 6, 1], 90, false),
            ([11, 11, 3], 90, true),
            ([12, 0, 1], 90, true),
            ([12, 6, 4], 100, false),
            ([12, 6, 4], 120, false),
            ([12, 8, 3], 103, true),
            ([12, 8, 3], 120, true),
            ([12, 8, 3], 121, true),
            ([13, 0, 2], 120, true),
        ] {
            assert_eq!(has_code(version, arch), has, "{version:?}, sm_{arch}");
        }
    }

    #[test]
    fn one_that_is_too_old_for_the_gpu_is_named_with_its_version() {
        let folders = library::folders(Some(hw2_softgpu::libraries()));
        assert_eq!(Cublas::find(90, &[12, 11], &folders).ok().unwrap().major, 11);
        let error = Cublas::find(103, &[11], &folders).err().unwrap().to_string();
        for part in ["libcublas.so of CUDA 11 for sm_103", "libcublas.so.11 is 11.11.3", "too old"]
        {
            assert!(error.contains(part), "{error}");
        }
    }
}
