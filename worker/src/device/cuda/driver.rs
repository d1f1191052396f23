//! The driver and the GPUs that it knows, before anything runs on one.

#![allow(unsafe_code)]

use cudarc::driver::{CudaContext, result, sys};

use super::runtime::RuntimeError;

/// The driver, once libcuda is loaded.
pub(super) struct Driver {
    /// The newest CUDA that it runs: 12,040 for 12.4.
    pub(super) version: i32,
    pub(super) gpus: usize,
}

/// A GPU as the driver describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Gpu {
    pub(super) ordinal: usize,
    pub(super) name: String,
    /// Compute capability: 70 for 7.0.
    pub(super) arch: u32,
    pub(super) multiprocessors: usize,
    pub(super) memory_bytes: usize,
    /// As nvidia-smi writes it: the same for every process, whatever number the GPU has there.
    pub(super) uuid: String,
}

impl Driver {
    pub(super) fn new() -> Result<Self, RuntimeError> {
        result::init()?;
        let mut version = 0;
        // SAFETY: it writes one int.
        unsafe { sys::cuDriverGetVersion(&mut version) }.result()?;
        Ok(Self { version, gpus: CudaContext::device_count()? as usize })
    }

    /// GPU number `ordinal`, which is below `gpus`.
    pub(super) fn gpu(&self, ordinal: usize) -> Result<Gpu, RuntimeError> {
        use sys::CUdevice_attribute_enum::{
            CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as MAJOR,
            CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as MINOR,
            CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT as MULTIPROCESSORS,
        };
        let device = result::device::get(ordinal as i32)?;
        // SAFETY: the driver has just given this device.
        let (major, minor, multiprocessors, memory_bytes) = unsafe {
            let attribute = |attribute| result::device::get_attribute(device, attribute);
            let memory_bytes = result::device::total_mem(device)?;
            (attribute(MAJOR)?, attribute(MINOR)?, attribute(MULTIPROCESSORS)?, memory_bytes)
        };
        let name = result::device::get_name(device)?;
        let uuid = result::device::get_uuid(device)?.bytes.map(|byte| byte as u8);
        let uuid = in_words(&name, uuid);
        Ok(Gpu {
            ordinal,
            name,
            arch: (10 * major + minor) as u32,
            multiprocessors: multiprocessors as usize,
            memory_bytes,
            uuid,
        })
    }
}

/// Of the GPU with this name, or of a part of one, of which it says so.
fn in_words(name: &str, uuid: [u8; 16]) -> String {
    let kind = if name.contains(" MIG ") { "MIG" } else { "GPU" };
    let digits = hw2_common::hex(&uuid);
    let part = |range: std::ops::Range<usize>| &digits[range];
    let parts = [part(0..8), part(8..12), part(12..16), part(16..20), part(20..32)];
    format!("{kind}-{}", parts.join("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_is_written_as_nvidia_smi_does() {
        let uuid = std::array::from_fn(|place| 17 * place as u8);
        let whole = in_words("NVIDIA H200", uuid);
        assert_eq!(whole, "GPU-00112233-4455-6677-8899-aabbccddeeff");
        let part = in_words("NVIDIA A100-SXM4-40GB MIG 1g.5gb", uuid);
        assert_eq!(part, "MIG-00112233-4455-6677-8899-aabbccddeeff");
    }
}
