//! The one place that talks to the driver and to cuBLAS.

#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ffi::c_void;
use std::mem::ManuallyDrop;
use std::sync::Arc;

use cudarc::cublas::{self, CudaBlas};
use cudarc::driver::{
    self, CudaContext, CudaFunction, CudaModule, CudaSlice, CudaStream, DevicePtr, DriverError,
};
use cudarc::nvrtc::Ptx;

use super::driver::Gpu;
use super::launch::{Arg, Kernel, Launch, Matrix, Place, Product, Task};
use crate::device::{DropoutCoordinates, Span};

/// For cuBLAS, which would otherwise allocate its own: the same bits every time need the same memory.
const BLAS_WORKSPACE_BYTES: usize = 32 << 20;

/// A GPU with our kernels, and its memory.
pub(super) struct Runtime {
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    /// Its drop would panic on a GPU that is lost.
    blas: ManuallyDrop<CudaBlas>,
    module: Arc<CudaModule>,
    functions: HashMap<&'static str, CudaFunction>,
    buffers: Vec<CudaSlice<f32>>,
    workspace: CudaSlice<u8>,
    coordinates: CudaSlice<u32>,
    _blas_workspace: CudaSlice<u8>,
}

/// Why the GPU does not do what it should.
#[derive(Debug, thiserror::Error)]
pub(super) enum RuntimeError {
    #[error("{}", words(.0))]
    Driver(#[from] DriverError),
    #[error("cuBLAS: {0:?}")]
    Blas(#[from] cublas::result::CublasError),
}

/// What the driver says of an error, its name for whoever looks it up, and what to do.
fn words(error: &DriverError) -> String {
    let known = error.error_string().ok().zip(error.error_name().ok());
    let words = |word: &std::ffi::CStr| word.to_string_lossy().into_owned();
    let known = known.map(|(text, name)| (words(text), words(name)));
    super::remedy::words(error.0 as u32, known)
}

impl Runtime {
    /// `gpu` with `code`, our kernels compiled for its architecture. libcublas is loaded.
    pub(super) fn new(gpu: &Gpu, code: Vec<u8>) -> Result<Self, RuntimeError> {
        let context = CudaContext::new(gpu.ordinal)?;
        // SAFETY: nothing is allocated yet, and everything runs on streams that we order ourselves.
        unsafe { context.disable_event_tracking() };
        let stream = context.new_stream()?;
        let module = context.load_module(Ptx::from_binary(code))?;
        let blas = ManuallyDrop::new(CudaBlas::new(Arc::clone(&stream))?);
        let blas_workspace = stream.alloc_zeros::<u8>(BLAS_WORKSPACE_BYTES)?;
        // SAFETY: the workspace lives as long as the handle, and no other stream uses it.
        unsafe {
            let (address, _) = blas_workspace.device_ptr(&stream);
            let workspace = address as *mut c_void;
            cublas::sys::cublasSetWorkspace_v2(*blas.handle(), workspace, BLAS_WORKSPACE_BYTES)
                .result()?;
            let mode = cublas::sys::cublasAtomicsMode_t::CUBLAS_ATOMICS_NOT_ALLOWED;
            cublas::sys::cublasSetAtomicsMode(*blas.handle(), mode).result()?;
            let mode = cublas::sys::cublasMath_t::CUBLAS_DEFAULT_MATH;
            cublas::sys::cublasSetMathMode(*blas.handle(), mode).result()?;
        }
        Ok(Self {
            blas,
            module,
            functions: HashMap::new(),
            buffers: Vec::new(),
            workspace: stream.alloc_zeros(256)?,
            coordinates: stream.alloc_zeros(4)?,
            _blas_workspace: blas_workspace,
            context,
            stream,
        })
    }

    /// One more buffer of `len` zeros.
    pub(super) fn alloc(&mut self, len: usize) -> Result<(), RuntimeError> {
        // The driver has no empty memory.
        self.buffers.push(self.stream.alloc_zeros(len.max(1))?);
        Ok(())
    }

    /// Makes the workspace at least so large; what it holds is lost.
    pub(super) fn reserve(&mut self, bytes: usize) -> Result<(), RuntimeError> {
        if self.workspace.len() < bytes {
            self.stream.synchronize()?;
            self.workspace = self.stream.alloc_zeros(bytes)?;
        }
        Ok(())
    }

    pub(super) fn upload(&mut self, target: Span, values: &[f32]) -> Result<(), RuntimeError> {
        let buffer = &mut self.buffers[target.buffer.0 as usize];
        let mut view = buffer.slice_mut(target.offset..target.offset + target.len);
        Ok(self.stream.memcpy_htod(values, &mut view)?)
    }

    pub(super) fn download(&self, source: Span, values: &mut [f32]) -> Result<(), RuntimeError> {
        let buffer = &self.buffers[source.buffer.0 as usize];
        let view = buffer.slice(source.offset..source.offset + source.len);
        self.stream.memcpy_dtoh(&view, values)?;
        Ok(self.stream.synchronize()?)
    }

    pub(super) fn set_dropout(&mut self, at: DropoutCoordinates) -> Result<(), RuntimeError> {
        let words = [at.seed as u32, (at.seed >> 32) as u32, at.step.0 as u32, at.replica.0];
        Ok(self.stream.memcpy_htod(&words, &mut self.coordinates)?)
    }

    /// Puts `launch` into the stream.
    pub(super) fn launch(&mut self, launch: &Launch) -> Result<(), RuntimeError> {
        match &launch.task {
            Task::Kernel(kernel) => self.kernel(kernel),
            Task::Product(product) => self.product(product),
        }
    }

    fn kernel(&mut self, kernel: &Kernel) -> Result<(), RuntimeError> {
        self.context.bind_to_thread()?;
        if !self.functions.contains_key(kernel.name) {
            let function = self.module.load_function(kernel.name)?;
            self.functions.insert(kernel.name, function);
        }
        let function = self.functions[kernel.name].cu_function();
        let mut values: Vec<Vec<u64>> = kernel.args.iter().map(|arg| self.value(arg)).collect();
        let mut pointers: Vec<*mut c_void> =
            values.iter_mut().map(|value| value.as_mut_ptr().cast()).collect();
        let ([x, y], [bx, by]) = (kernel.grid, kernel.block);
        // SAFETY: lowering gives each kernel the arguments of its declaration, with addresses of
        // memory that is never freed before the stream is done.
        unsafe {
            driver::result::launch_kernel(
                function,
                (x, y, 1),
                (bx, by, 1),
                0,
                self.stream.cu_stream(),
                &mut pointers,
            )?;
        }
        Ok(())
    }

    /// The bytes of an argument, in words.
    fn value(&self, arg: &Arg) -> Vec<u64> {
        match arg {
            Arg::Address(place) => vec![self.address(*place)],
            Arg::Null => vec![0],
            Arg::Coordinates => vec![self.coordinates.device_ptr(&self.stream).0],
            Arg::Int(value) => vec![u64::from(value.cast_unsigned())],
            Arg::Float(value) => vec![u64::from(value.to_bits())],
            Arg::Double(value) => vec![value.to_bits()],
            Arg::Ints(values) => {
                let half = |value: &i32| u64::from(value.cast_unsigned());
                let word = |pair: &[i32]| half(&pair[0]) | pair.get(1).map_or(0, half) << 32;
                values.chunks(2).map(word).collect()
            }
        }
    }

    fn address(&self, place: Place) -> u64 {
        match place {
            Place::Buffer { buffer, offset } => {
                let (base, _) = self.buffers[buffer.0 as usize].device_ptr(&self.stream);
                base + 4 * offset as u64
            }
            Place::Workspace { offset } => {
                self.workspace.device_ptr(&self.stream).0 + offset as u64
            }
        }
    }

    fn product(&mut self, product: &Product) -> Result<(), RuntimeError> {
        let Product { m, n, k, a, b, beta, c, ldc } = *product;
        let operation = |matrix: Matrix| match matrix.transposed {
            true => cublas::sys::cublasOperation_t::CUBLAS_OP_T,
            false => cublas::sys::cublasOperation_t::CUBLAS_OP_N,
        };
        let [m, n, k, lda, ldb, ldc] = [m, n, k, a.ld, b.ld, ldc].map(super::launch::to_int);
        let address = |place: Place| self.address(place) as *mut f32;
        self.context.bind_to_thread()?;
        // SAFETY: lowering gives matrices that lie within their buffers; alpha and beta are read
        // before the call returns.
        unsafe {
            cublas::result::sgemm(
                *self.blas.handle(),
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
        Ok(())
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        if self.stream.synchronize().is_ok() {
            // SAFETY: it is dropped once, here, and before the workspace that it uses.
            unsafe { ManuallyDrop::drop(&mut self.blas) };
        }
    }
}

/// The major version of CUDA whose libcublas the calls above go to.
pub(super) fn cublas_major() -> Result<u32, RuntimeError> {
    let mut major = 0;
    let property = cublas::sys::libraryPropertyType_t::MAJOR_VERSION;
    // SAFETY: it writes one int.
    unsafe { cublas::sys::cublasGetProperty(property, &mut major) }.result()?;
    Ok(major as u32)
}
