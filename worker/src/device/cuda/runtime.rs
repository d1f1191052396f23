//! A GPU at work: its memory, and what it is asked to do.

#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::Arc;

use cudarc::cublas;
use cudarc::driver::{
    self, CudaContext, CudaEvent, CudaFunction, CudaModule, CudaSlice, CudaStream, DevicePtr,
    DriverError, result,
};
use cudarc::nvrtc::Ptx;
use hw2_common::config::Precision;

use super::arena::Arena;
use super::blas::Blas;
use super::cast;
use super::cublas::Cublas;
use super::driver::Gpu;
use super::graph::Graph;
use super::launch::{Arg, Kernel, LANES, Launch, Place, Task, number_bytes};
use super::transfer::{Download, Upload, Uploads};
use crate::device::{DropoutCoordinates, Format, Span};

/// A GPU with our kernels, and its memory.
pub(super) struct Runtime {
    context: Arc<CudaContext>,
    /// One for each lane; the first is also that of what is alone.
    streams: [Arc<CudaStream>; LANES],
    blas: [Blas; LANES],
    /// When the other lanes may begin, and when each is done.
    forked: CudaEvent,
    joined: [CudaEvent; LANES - 1],
    module: Arc<CudaModule>,
    functions: HashMap<&'static str, CudaFunction>,
    arenas: Vec<CudaSlice<u8>>,
    buffers: Vec<Placed>,
    workspace: CudaSlice<u8>,
    coordinates: CudaSlice<u32>,
    uploads: Uploads,
    download_stream: Arc<CudaStream>,
    /// For one download at a time.
    download: Download,
}

/// Where a buffer lies.
struct Placed {
    arena: usize,
    /// In bytes.
    offset: usize,
}

/// Why the GPU does not do what it should.
#[derive(Debug, thiserror::Error)]
pub(super) enum RuntimeError {
    #[error("{}", words(.0))]
    Driver(#[from] DriverError),
    #[error("{}", super::remedy::cublas_words(.0.0 as u32, &format!("{:?}", .0.0)))]
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
    /// `gpu` with `code`, our kernels compiled for its architecture and `precision`.
    pub(super) fn new(
        gpu: &Gpu,
        cublas: &Arc<Cublas>,
        code: Vec<u8>,
        precision: Precision,
    ) -> Result<Self, RuntimeError> {
        let context = CudaContext::new(gpu.ordinal)?;
        // SAFETY: nothing is allocated yet, and everything runs on streams that we order ourselves.
        unsafe { context.disable_event_tracking() };
        let streams = [context.new_stream()?, context.new_stream()?];
        let stream = &streams[0];
        let module = context.load_module(Ptx::from_binary(code))?;
        let [first, second] = &streams;
        let blas = [Blas::new(cublas, first, precision)?, Blas::new(cublas, second, precision)?];
        let (workspace, coordinates) = (stream.alloc_zeros(256)?, stream.alloc_zeros(4)?);
        // Other streams use memory only after the one that asked for it has got it.
        streams.iter().try_for_each(|stream| stream.synchronize())?;
        Ok(Self {
            blas,
            module,
            functions: HashMap::new(),
            arenas: Vec::new(),
            buffers: Vec::new(),
            workspace,
            coordinates,
            uploads: Uploads::new(&context)?,
            download_stream: context.new_stream()?,
            download: Download::new(&context, 1)?,
            forked: context.new_event(None)?,
            joined: [context.new_event(None)?],
            context,
            streams,
        })
    }

    /// Buffers in `arena`, a new one, of which what lasts is zeros.
    pub(super) fn alloc(&mut self, arena: &Arena) -> Result<(), RuntimeError> {
        // SAFETY: what does not last is written before it is read.
        let mut memory = unsafe { self.streams[0].alloc::<u8>(arena.bytes.max(1)) }?;
        self.streams[0].memset_zeros(&mut memory.slice_mut(..arena.lasting_bytes))?;
        self.streams[0].synchronize()?;
        let number = self.arenas.len();
        self.arenas.push(memory);
        let placed = |offset: &usize| Placed { arena: number, offset: *offset };
        self.buffers.extend(arena.offsets.iter().map(placed));
        Ok(())
    }

    /// Makes the workspace at least so large, and says whether it is another one now.
    pub(super) fn reserve(&mut self, bytes: usize) -> Result<bool, RuntimeError> {
        let is_small = self.workspace.len() < bytes;
        if is_small {
            self.streams[0].synchronize()?;
            // SAFETY: what is in it is written before it is read.
            self.workspace = unsafe { self.streams[0].alloc(bytes) }?;
        }
        Ok(is_small)
    }

    /// Sends `values` off for whoever takes them.
    pub(super) fn stage(&mut self, values: &[f32]) -> Result<Upload, RuntimeError> {
        Ok(self.uploads.begin(values)?)
    }

    /// Sends `len` bytes off, as `write` leaves them.
    pub(super) fn stage_with(
        &mut self,
        len: usize,
        write: impl FnOnce(&mut [u8]),
    ) -> Result<Upload, RuntimeError> {
        Ok(self.uploads.begin_with(len, write)?)
    }

    /// Where what was sent off is, for what the stream is asked from here on to [`Self::taken`].
    pub(super) fn arrived(&mut self, upload: Upload) -> Result<Place, RuntimeError> {
        Ok(Place::Device { address: self.uploads.take(upload, &self.streams[0])? })
    }

    /// Nobody reads any more what was sent off.
    pub(super) fn taken(&mut self, upload: Upload) -> Result<(), RuntimeError> {
        Ok(self.uploads.taken(upload, &self.streams[0])?)
    }

    /// Puts what was sent off into `target`, in the order of the stream.
    pub(super) fn take(&mut self, upload: Upload, target: Span) -> Result<(), RuntimeError> {
        let from = self.uploads.take(upload, &self.streams[0])?;
        let to = self.address(target.into());
        if target.buffer.format == Format::Full {
            // SAFETY: both are that long.
            unsafe {
                result::memcpy_dtod_async(to, from, 4 * target.len, self.streams[0].cu_stream())?;
            }
        } else {
            self.cast(Format::Full, from, target.buffer.format, to, target.len)?;
        }
        Ok(self.uploads.taken(upload, &self.streams[0])?)
    }

    /// Waits for everything asked so far and copies `source` to `values`.
    pub(super) fn download(
        &mut self,
        source: Span,
        values: &mut [f32],
    ) -> Result<(), RuntimeError> {
        if self.download.len_max() < source.len {
            self.download = Download::new(&self.context, source.len)?;
        }
        let mut address = self.address(source.into());
        let mut full = None;
        if source.buffer.format != Format::Full {
            // SAFETY: it is written before it is read.
            let memory = unsafe { self.streams[0].alloc::<f32>(source.len) }?;
            let to = memory.device_ptr(&self.streams[0]).0;
            self.cast(source.buffer.format, address, Format::Full, to, source.len)?;
            (address, full) = (to, Some(memory));
        }
        self.download.begin(address, source.len, &self.streams[0], &self.download_stream)?;
        values.copy_from_slice(self.download.wait()?);
        drop(full);
        Ok(())
    }

    /// Waits for everything asked so far.
    pub(super) fn finish(&mut self) -> Result<(), RuntimeError> {
        Ok(self.streams[0].synchronize()?)
    }

    /// Room for `len` numbers of a download.
    pub(super) fn new_download(&self, len: usize) -> Result<Download, RuntimeError> {
        Ok(Download::new(&self.context, len)?)
    }

    /// Begins to copy `source`, which is in full, to `download`, when everything asked so far is
    /// done.
    pub(super) fn begin_download(
        &self,
        source: Span,
        download: &mut Download,
    ) -> Result<(), RuntimeError> {
        assert_eq!(source.buffer.format, Format::Full, "what is made is in full");
        let address = self.address(source.into());
        Ok(download.begin(address, source.len, &self.streams[0], &self.download_stream)?)
    }

    /// What `ask` asks of this, to be repeated; none where graphs are unknown.
    pub(super) fn capture(
        &mut self,
        ask: impl FnOnce(&mut Self) -> Result<(), RuntimeError>,
    ) -> Result<Option<Graph>, RuntimeError> {
        let stream = Arc::clone(&self.streams[0]);
        Graph::capture(&stream, || ask(self))
    }

    /// `len` numbers from one format and address to another.
    fn cast(
        &mut self,
        from: Format,
        input: u64,
        into: Format,
        output: u64,
        len: usize,
    ) -> Result<(), RuntimeError> {
        let place = |address| Arg::Address(Place::Device { address });
        let kernel = cast::launch(from, place(input), into, place(output), len);
        self.kernel(&kernel, 0)
    }

    pub(super) fn set_dropout(&mut self, at: DropoutCoordinates) -> Result<(), RuntimeError> {
        let words = [at.seed as u32, (at.seed >> 32) as u32, at.step.0 as u32, at.replica.0];
        let upload = self.uploads.begin(bytemuck::cast_slice(&words))?;
        let from = self.uploads.take(upload, &self.streams[0])?;
        let (to, _) = self.coordinates.device_ptr(&self.streams[0]);
        // SAFETY: both are that long.
        unsafe { result::memcpy_dtod_async(to, from, 16, self.streams[0].cu_stream())? };
        Ok(self.uploads.taken(upload, &self.streams[0])?)
    }

    /// Puts `launches` into the streams of their lanes. What is asked for later comes after all of
    /// them.
    pub(super) fn launch_all(&mut self, launches: &[Launch]) -> Result<(), RuntimeError> {
        let mut is_forked = false;
        for launch in launches {
            match (is_forked, launch.lane.is_some()) {
                (false, true) => self.fork()?,
                (true, false) => self.join()?,
                _ => {}
            }
            is_forked = launch.lane.is_some();
            self.launch(launch)?;
        }
        if is_forked { self.join() } else { Ok(()) }
    }

    /// The other lanes begin when everything asked so far is done.
    fn fork(&self) -> Result<(), DriverError> {
        let [first, others @ ..] = &self.streams;
        self.forked.record(first)?;
        others.iter().try_for_each(|other| other.wait(&self.forked))
    }

    /// What follows comes after what all lanes were asked.
    fn join(&self) -> Result<(), RuntimeError> {
        let [first, others @ ..] = &self.streams;
        for (other, joined) in others.iter().zip(&self.joined) {
            joined.record(other)?;
            first.wait(joined)?;
        }
        Ok(())
    }

    fn launch(&mut self, launch: &Launch) -> Result<(), RuntimeError> {
        let lane = launch.lane.unwrap_or(0);
        match &launch.task {
            Task::Kernel(kernel) => self.kernel(kernel, lane),
            Task::Product(product) => {
                self.context.bind_to_thread()?;
                Ok(self.blas[lane].multiply(product, |place| self.address(place))?)
            }
        }
    }

    fn kernel(&mut self, kernel: &Kernel, lane: usize) -> Result<(), RuntimeError> {
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
                self.streams[lane].cu_stream(),
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
            Arg::Coordinates => vec![self.coordinates.device_ptr(&self.streams[0]).0],
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
                let Placed { arena, offset: start } = self.buffers[buffer.number()];
                let bytes = start + number_bytes(buffer.format) * offset;
                self.arenas[arena].device_ptr(&self.streams[0]).0 + bytes as u64
            }
            Place::Workspace { offset } => {
                self.workspace.device_ptr(&self.streams[0]).0 + offset as u64
            }
            Place::Device { address } => address,
        }
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        let streams = self.streams.iter().chain([&self.download_stream]);
        if streams.into_iter().all(|stream| stream.synchronize().is_ok())
            && self.uploads.finish().is_ok()
        {
            self.blas.iter_mut().for_each(Blas::release);
        }
    }
}
