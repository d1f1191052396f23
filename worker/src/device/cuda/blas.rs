//! cuBLAS: the matrix products.

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::mem::ManuallyDrop;
use std::sync::Arc;

use cudarc::cublas::result::CublasError;
use cudarc::cublas::{self, CudaBlas};
use cudarc::driver::{CudaSlice, CudaStream, DevicePtr};
use hw2_common::config::Precision;

use super::launch::{Matrix, Place, Product, to_int};
use super::runtime::RuntimeError;
use crate::device::Format;

/// For cuBLAS, which would otherwise allocate its own: the same bits every time need the same
/// memory.
const WORKSPACE_BYTES: usize = 32 << 20;

/// A handle that puts products into one stream.
pub(super) struct Blas {
    /// Its drop would panic on a GPU that is lost.
    handle: ManuallyDrop<CudaBlas>,
    precision: Precision,
    _workspace: CudaSlice<u8>,
}

impl Blas {
    /// For products of `precision` in `stream`. libcublas is loaded.
    pub(super) fn new(
        stream: &Arc<CudaStream>,
        precision: Precision,
    ) -> Result<Self, RuntimeError> {
        let handle = ManuallyDrop::new(CudaBlas::new(Arc::clone(stream))?);
        let workspace = stream.alloc_zeros::<u8>(WORKSPACE_BYTES)?;
        // SAFETY: the workspace lives as long as the handle, and no other stream uses it.
        unsafe {
            let (address, _) = workspace.device_ptr(stream);
            let address = address as *mut c_void;
            cublas::sys::cublasSetWorkspace_v2(*handle.handle(), address, WORKSPACE_BYTES)
                .result()?;
            let mode = cublas::sys::cublasAtomicsMode_t::CUBLAS_ATOMICS_NOT_ALLOWED;
            cublas::sys::cublasSetAtomicsMode(*handle.handle(), mode).result()?;
            let mode = cublas::sys::cublasMath_t::CUBLAS_DEFAULT_MATH;
            cublas::sys::cublasSetMathMode(*handle.handle(), mode).result()?;
        }
        Ok(Self { handle, precision, _workspace: workspace })
    }

    /// Ends the handle, on a GPU that works; nothing may be asked of it afterwards.
    pub(super) fn release(&mut self) {
        // SAFETY: it is called once, when its runtime ends, and the workspace is still there.
        unsafe { ManuallyDrop::drop(&mut self.handle) };
    }

    /// Asks for `product`, of matrices at the addresses that `place` gives.
    pub(super) fn multiply(
        &self,
        product: &Product,
        place: impl Fn(Place) -> u64,
    ) -> Result<(), CublasError> {
        use cublas::sys::cublasComputeType_t::{
            CUBLAS_COMPUTE_32F as FULL, CUBLAS_COMPUTE_32F_FAST_TF32 as TF32,
        };
        let Product { m, n, k, a, b, beta, c, ldc, .. } = *product;
        let operation = |matrix: Matrix| match matrix.transposed {
            true => cublas::sys::cublasOperation_t::CUBLAS_OP_T,
            false => cublas::sys::cublasOperation_t::CUBLAS_OP_N,
        };
        let [m, n, k, lda, ldb, ldc] = [m, n, k, a.ld, b.ld, ldc].map(to_int);
        if product.format == Format::Full && self.precision != Precision::Tf32 {
            let address = |at: Place| place(at) as *mut f32;
            // SAFETY: lowering gives matrices that lie within their buffers; alpha and beta are
            // read before the call returns. A K80 has this function and not the one below.
            unsafe {
                cublas::result::sgemm(
                    *self.handle.handle(),
                    operation(a),
                    operation(b),
                    m,
                    n,
                    k,
                    &1.0,
                    address(a.place),
                    lda,
                    address(b.place),
                    ldb,
                    &beta,
                    address(c),
                    ldc,
                )?;
            }
            return Ok(());
        }
        let address = |at: Place| place(at) as *mut c_void;
        let (alpha, beta) = (std::ptr::from_ref(&1.0_f32), std::ptr::from_ref(&beta));
        // SAFETY: as above.
        unsafe {
            cublas::result::gemm_ex(
                *self.handle.handle(),
                operation(a),
                operation(b),
                m,
                n,
                k,
                alpha.cast(),
                address(a.place),
                data_type(product.format),
                lda,
                address(b.place),
                data_type(product.format),
                ldb,
                beta.cast(),
                address(c),
                data_type(product.result),
                ldc,
                if product.format == Format::Full { TF32 } else { FULL },
                cublas::sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
            )?;
        }
        Ok(())
    }
}

fn data_type(format: Format) -> cublas::sys::cudaDataType_t {
    match format {
        Format::Full => cublas::sys::cudaDataType_t::CUDA_R_32F,
        Format::Bf16 => cublas::sys::cudaDataType_t::CUDA_R_16BF,
        Format::Byte => unreachable!("no product is of bytes"),
    }
}

/// The major version of CUDA whose libcublas the calls above go to.
pub(super) fn cublas_major() -> Result<u32, CublasError> {
    cublas_property(cublas::sys::libraryPropertyType_t::MAJOR_VERSION)
}

/// The version of that libcublas, as 12.4.5.
pub(super) fn cublas_version() -> Result<String, CublasError> {
    use cublas::sys::libraryPropertyType_t::{MAJOR_VERSION, MINOR_VERSION, PATCH_LEVEL};
    let [major, minor, patch] = [MAJOR_VERSION, MINOR_VERSION, PATCH_LEVEL].map(cublas_property);
    Ok(format!("{}.{}.{}", major?, minor?, patch?))
}

fn cublas_property(property: cublas::sys::libraryPropertyType_t) -> Result<u32, CublasError> {
    let mut value = 0;
    // SAFETY: it writes one int.
    unsafe { cublas::sys::cublasGetProperty(property, &mut value) }.result()?;
    Ok(value as u32)
}
