//! Copies between host and device on streams of their own, beside the computing.
//!
//! What is uploaded goes through pinned memory and a piece of device memory of its own, so that it
//! may arrive while the target is still in use. What is downloaded arrives in pinned memory.

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::slice;
use std::sync::Arc;

use cudarc::driver::{
    CudaContext, CudaEvent, CudaSlice, CudaStream, DevicePtr, DriverError, result, sys,
};

/// The least that a slot holds.
const SLOT_BYTES_MIN: usize = 4096;
/// Slots of one size before one is waited for: one that is computed on, one on its way, one staged.
const SLOTS_MIN: usize = 3;
/// Of small ones there may be so many bytes: weights arrive while the device is busy with the step
/// that they come after, and nobody should wait for its end. Tests have few, so that each is used
/// again.
const SLOTS_BYTES: usize = if cfg!(test) { 0 } else { 32 << 20 };

/// Host memory that the device reads and writes by itself.
pub(super) struct Pinned {
    context: Arc<CudaContext>,
    memory: *mut c_void,
    bytes: usize,
}

// SAFETY: it is memory, which is no thread's.
unsafe impl Send for Pinned {}

impl Pinned {
    fn new(context: &Arc<CudaContext>, bytes: usize) -> Result<Self, DriverError> {
        context.bind_to_thread()?;
        // SAFETY: the context is current; the memory is freed once, below.
        let memory = unsafe { result::malloc_host(bytes, sys::CU_MEMHOSTALLOC_PORTABLE) }?;
        Ok(Self { context: Arc::clone(context), memory, bytes })
    }

    /// The first `len` numbers.
    fn numbers(&self, len: usize) -> &[f32] {
        assert!(4 * len <= self.bytes);
        // SAFETY: it is that long and aligned to a page; any bits are numbers.
        unsafe { slice::from_raw_parts(self.memory.cast(), len) }
    }

    fn numbers_mut(&mut self, len: usize) -> &mut [f32] {
        bytemuck::cast_slice_mut(self.bytes_mut(4 * len))
    }

    fn bytes_mut(&mut self, len: usize) -> &mut [u8] {
        assert!(len <= self.bytes);
        // SAFETY: it is that long, and borrowed for writing; any bits are bytes.
        unsafe { slice::from_raw_parts_mut(self.memory.cast(), len) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if self.context.bind_to_thread().is_ok() {
            // SAFETY: no copy from or to it is on its way: the runtime has waited for all. On a
            // device that is lost nothing can be freed any more, which is no matter.
            let _ = unsafe { result::free_host(self.memory) };
        }
    }
}

/// Memory on both sides for one upload.
struct Slot {
    host: Pinned,
    device: CudaSlice<u8>,
    /// Whether somebody still has to take what arrives.
    is_held: bool,
    arrived: CudaEvent,
    taken: CudaEvent,
}

/// Numbers on their way to the device.
pub(super) struct Uploads {
    stream: Arc<CudaStream>,
    slots: Vec<Slot>,
}

/// An upload that nobody has taken yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Upload(usize);

impl Uploads {
    pub(super) fn new(context: &Arc<CudaContext>) -> Result<Self, DriverError> {
        Ok(Self { stream: context.new_stream()?, slots: Vec::new() })
    }

    /// Waits for all that was sent off.
    pub(super) fn finish(&self) -> Result<(), DriverError> {
        self.stream.synchronize()
    }

    /// Sends `values` off.
    pub(super) fn begin(&mut self, values: &[f32]) -> Result<Upload, DriverError> {
        let bytes: &[u8] = bytemuck::cast_slice(values);
        self.begin_with(bytes.len(), |host| host.copy_from_slice(bytes))
    }

    /// Sends `len` bytes off, as `write` leaves them.
    pub(super) fn begin_with(
        &mut self,
        len: usize,
        write: impl FnOnce(&mut [u8]),
    ) -> Result<Upload, DriverError> {
        let index = self.free_slot(len.next_power_of_two().max(SLOT_BYTES_MIN))?;
        let slot = &mut self.slots[index];
        let host = slot.host.bytes_mut(len);
        write(host);
        // SAFETY: both sides hold that much, and nobody touches either before `taken`.
        unsafe {
            let (device, _) = slot.device.device_ptr(&self.stream);
            result::memcpy_htod_async(device, host, self.stream.cu_stream())?;
        }
        slot.arrived.record(&self.stream)?;
        slot.is_held = true;
        Ok(Upload(index))
    }

    /// The address at which it arrives, for what `stream` does from here on; [`Self::taken`] must
    /// follow.
    pub(super) fn take(
        &self,
        Upload(index): Upload,
        stream: &CudaStream,
    ) -> Result<u64, DriverError> {
        let slot = &self.slots[index];
        stream.wait(&slot.arrived)?;
        Ok(slot.device.device_ptr(&self.stream).0)
    }

    /// What `stream` has been asked to do so far is all that reads it.
    pub(super) fn taken(
        &mut self,
        Upload(index): Upload,
        stream: &CudaStream,
    ) -> Result<(), DriverError> {
        let slot = &mut self.slots[index];
        slot.is_held = false;
        slot.taken.record(stream)
    }

    /// A slot of `bytes` that nobody uses any more, a new one as long as there are few.
    fn free_slot(&mut self, bytes: usize) -> Result<usize, DriverError> {
        let fits = |slot: &Slot| slot.host.bytes == bytes && !slot.is_held;
        let fitting = || self.slots.iter().enumerate().filter(|(_, slot)| fits(slot));
        if let Some((index, _)) = fitting().find(|(_, slot)| slot.taken.is_complete()) {
            return Ok(index);
        }
        if let Some((index, slot)) = fitting().nth((SLOTS_BYTES / bytes).max(SLOTS_MIN) - 1) {
            slot.taken.synchronize()?;
            return Ok(index);
        }
        let context = self.stream.context();
        // SAFETY: it is written before anybody reads it.
        let device = unsafe { self.stream.alloc(bytes) }?;
        self.slots.push(Slot {
            host: Pinned::new(context, bytes)?,
            device,
            is_held: false,
            arrived: context.new_event(None)?,
            taken: context.new_event(None)?,
        });
        Ok(self.slots.len() - 1)
    }
}

/// Numbers on their way from the device.
pub(super) struct Download {
    host: Pinned,
    len: usize,
    ready: CudaEvent,
    arrived: CudaEvent,
}

impl Download {
    /// Nothing yet.
    pub(super) fn new(context: &Arc<CudaContext>, len_max: usize) -> Result<Self, DriverError> {
        Ok(Self {
            host: Pinned::new(context, 4 * len_max.max(1))?,
            len: 0,
            ready: context.new_event(None)?,
            // Whoever waits leaves the processor to those who decode images.
            arrived: context.new_event(Some(sys::CUevent_flags::CU_EVENT_BLOCKING_SYNC))?,
        })
    }

    /// How many numbers it can hold.
    pub(super) fn len_max(&self) -> usize {
        self.host.bytes / 4
    }

    /// Copies `len` numbers from `device` on `stream`, when `computing` has done what it has been
    /// asked to do so far.
    pub(super) fn begin(
        &mut self,
        device: u64,
        len: usize,
        computing: &CudaStream,
        stream: &CudaStream,
    ) -> Result<(), DriverError> {
        self.len = len;
        self.ready.record(computing)?;
        stream.wait(&self.ready)?;
        // SAFETY: `device` is the address of that many numbers, and the host's memory holds them;
        // nobody reads it before `arrived`.
        unsafe {
            result::memcpy_dtoh_async(self.host.numbers_mut(len), device, stream.cu_stream())?;
        }
        self.arrived.record(stream)
    }

    /// Waits for what was begun.
    pub(super) fn wait(&self) -> Result<&[f32], DriverError> {
        self.arrived.synchronize()?;
        Ok(self.host.numbers(self.len))
    }
}
