//! cuBLAS: the matrix products.

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::sync::Arc;

use cudarc::cublas::result::CublasError;
use cudarc::cublas::sys;
use cudarc::driver::{CudaSlice, CudaStream, DevicePtr};
use hw2_common::config::Precision;

use super::cublas::Cublas;
use super::launch::{Matrix, Place, Product, to_int};
use super::runtime::RuntimeError;
use crate::device::Format;

/// For cuBLAS, which would otherwise allocate its own: the same bits every time need the same
/// memory.
const WORKSPACE_BYTES: usize = 32 << 20;

/// A handle that puts products into one stream.
pub(super) struct Blas {
    cublas: Arc<Cublas>,
    handle: sys::cublasHandle_t,
    precision: Precision,
    _workspace: CudaSlice<u8>,
    /// Which it uses.
    _stream: Arc<CudaStream>,
}

// SAFETY: a handle may be used by any thread, by one at a time.
unsafe impl Send for Blas {}

impl Blas {
    /// For products of `precision` in `stream`.
    pub(super) fn new(
        cublas: &Arc<Cublas>,
        stream: &Arc<CudaStream>,
        precision: Precision,
    ) -> Result<Self, RuntimeError> {
        use sys::cublasAtomicsMode_t::CUBLAS_ATOMICS_NOT_ALLOWED;
        // Else cuBLAS may add up bfloat16 numbers where a product's result is in bfloat16.
        use sys::cublasMath_t::CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION as SUMS_IN_F32;
        stream.context().bind_to_thread()?;
        let workspace = stream.alloc_zeros::<u8>(WORKSPACE_BYTES)?;
        let address = workspace.device_ptr(stream).0 as *mut c_void;
        let mut handle = std::ptr::null_mut();
        // SAFETY: stream and workspace live as long as the handle, and no other stream uses the
        // workspace, which the handle forgets when it gets a stream.
        unsafe {
            (cublas.create)(&mut handle).result()?;
            (cublas.set_stream)(handle, stream.cu_stream()).result()?;
            (cublas.set_workspace)(handle, address, WORKSPACE_BYTES).result()?;
            (cublas.set_atomics_mode)(handle, CUBLAS_ATOMICS_NOT_ALLOWED).result()?;
            (cublas.set_math_mode)(handle, SUMS_IN_F32).result()?;
        }
        let (cublas, stream) = (Arc::clone(cublas), Arc::clone(stream));
        Ok(Self { cublas, handle, precision, _workspace: workspace, _stream: stream })
    }

    /// Ends the handle, on a GPU that works; nothing may be asked of it afterwards.
    pub(super) fn release(&mut self) {
        // SAFETY: it is called once, when its runtime ends, and the workspace is still there.
        // An error would change nothing any more.
        let _ = unsafe { (self.cublas.destroy)(self.handle) };
    }

    /// Asks for `product`, of matrices at the addresses that `place` gives.
    pub(super) fn multiply(
        &self,
        product: &Product,
        place: impl Fn(Place) -> u64,
    ) -> Result<(), CublasError> {
        use sys::cublasComputeType_t::{
            CUBLAS_COMPUTE_32F as FULL, CUBLAS_COMPUTE_32F_FAST_TF32 as TF32,
        };
        let Product { m, n, k, a, b, beta, c, ldc, .. } = *product;
        let operation = |matrix: Matrix| match matrix.transposed {
            true => sys::cublasOperation_t::CUBLAS_OP_T,
            false => sys::cublasOperation_t::CUBLAS_OP_N,
        };
        let [m, n, k, lda, ldb, ldc] = [m, n, k, a.ld, b.ld, ldc].map(to_int);
        if product.format == Format::Full && self.precision != Precision::Tf32 {
            let address = |at: Place| place(at) as *mut f32;
            // SAFETY: lowering gives matrices that lie within their buffers; alpha and beta are
            // read before the call returns. A K80 has this function and not the one below.
            let status = unsafe {
                (self.cublas.sgemm)(
                    self.handle,
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
                )
            };
            return status.result();
        }
        let address = |at: Place| place(at) as *mut c_void;
        let (alpha, beta) = (std::ptr::from_ref(&1.0_f32), std::ptr::from_ref(&beta));
        // SAFETY: as above.
        let status = unsafe {
            (self.cublas.gemm_ex)(
                self.handle,
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
                sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
            )
        };
        status.result()
    }
}

fn data_type(format: Format) -> sys::cudaDataType_t {
    match format {
        Format::Full => sys::cudaDataType_t::CUDA_R_32F,
        Format::Bf16 => sys::cudaDataType_t::CUDA_R_16BF,
        Format::Byte => unreachable!("no product is of bytes"),
    }
}
