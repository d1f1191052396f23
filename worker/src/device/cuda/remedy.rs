//! What an error of the driver or of cuBLAS means to a person: its words, its name, and what to do.

/// Error `code` of the driver, with what the driver itself calls it (text and name), if it knows
/// it.
pub(super) fn words(code: u32, said: Option<(String, String)>) -> String {
    let error = match said {
        Some((text, name)) => format!("{text} ({name})"),
        None => format!("error {code} of the driver, which has no name for it"),
    };
    match remedy(code) {
        Some(remedy) => format!("{error}: {remedy}"),
        None => error,
    }
}

/// What to do about it, where a person can do something.
fn remedy(code: u32) -> Option<&'static str> {
    Some(match code {
        // OUT_OF_MEMORY
        2 => {
            "use a smaller batch_size, or a GPU with more memory; `nvidia-smi` shows who else uses \
             this one"
        }
        // NOT_INITIALIZED, STUB_LIBRARY
        3 | 34 => {
            "this libcuda is no driver's (of a toolkit's folder `stubs`, perhaps): take its folder \
             off LD_LIBRARY_PATH or --cuda-lib-dir, or install NVIDIA's driver"
        }
        // DEVICE_UNAVAILABLE
        46 => {
            "another process has it for itself, as its compute mode lets it: end that one, which \
             `nvidia-smi` shows, or name another GPU by --gpu"
        }
        // NO_DEVICE, INVALID_DEVICE
        100 | 101 => {
            "see which GPUs `nvidia-smi` lists and whether CUDA_VISIBLE_DEVICES hides some; `hw2 \
             doctor` shows what a worker sees; --device cpu does without"
        }
        // INVALID_IMAGE, NO_BINARY_FOR_GPU, INVALID_PTX
        200 | 209 | 218 => {
            "libnvrtc has compiled for another kind of GPU: `hw2 doctor` shows which one is used, \
             and --cuda-lib-dir names the folder of another"
        }
        // ECC_UNCORRECTABLE
        214 => {
            "its memory is damaged: see `nvidia-smi -q -d ECC`, reset the GPU (`nvidia-smi \
             --gpu-reset`), and replace it if that comes again"
        }
        // NVLINK_UNCORRECTABLE
        220 => "its NVLink is damaged: see `nvidia-smi nvlink --errorcounters`, and reset the GPU",
        // UNSUPPORTED_PTX_VERSION
        222 => {
            "libnvrtc is newer than the driver: update the driver, or name the folder of an older \
             libnvrtc by --cuda-lib-dir"
        }
        // OPERATING_SYSTEM
        304 => "see whether this user may open /dev/nvidia*, and what `dmesg` says",
        // LAUNCH_OUT_OF_RESOURCES
        701 => "a kernel of hw2 does not fit this GPU: please report it with `hw2 doctor --json`",
        // LAUNCH_TIMEOUT
        702 => {
            "a GPU with a display ends what takes long: use one without, or a smaller batch_size"
        }
        // ILLEGAL_ADDRESS, HARDWARE_STACK_ERROR, ILLEGAL_INSTRUCTION, MISALIGNED_ADDRESS,
        // INVALID_ADDRESS_SPACE, INVALID_PC
        700 | 714..=718 => {
            "either a kernel of hw2 is wrong or the GPU is broken: start the worker again, and on \
             another GPU if that comes again (`hw2 verify --gpu N` tests one); please report it"
        }
        // LAUNCH_FAILED
        719 => {
            "see `dmesg` for Xid, NVIDIA's number of what happened; start the worker again, and on \
             another GPU if that comes again"
        }
        // SYSTEM_NOT_READY
        802 => {
            "its machine needs nvidia-fabricmanager running (`systemctl status \
             nvidia-fabricmanager`), of the driver's version"
        }
        // SYSTEM_DRIVER_MISMATCH
        803 => {
            "libcuda and the kernel's module are of different versions: restart the machine after an \
             update of the driver, or take a foreign libcuda off LD_LIBRARY_PATH"
        }
        // COMPAT_NOT_SUPPORTED_ON_DEVICE
        804 => {
            "this libcuda is one for compatibility, which this GPU cannot use: take its folder \
             (cuda/compat) off LD_LIBRARY_PATH"
        }
        // MPS_*
        805..=809 => "CUDA's MPS server fails: see its log, restart it, or stop it",
        // UNKNOWN, and what a GPU says that has fallen off the bus
        999 => {
            "see `dmesg` for Xid, NVIDIA's number of what happened, and whether `nvidia-smi` still \
             lists the GPU; reset it or restart the machine, or use another one"
        }
        _ => return None,
    })
}

/// Status `code` of cuBLAS, which calls it `name`.
pub(super) fn cublas_words(code: u32, name: &str) -> String {
    match cublas_remedy(code) {
        Some(remedy) => format!("cuBLAS: {name}: {remedy}"),
        None => format!("cuBLAS: {name}"),
    }
}

fn cublas_remedy(code: u32) -> Option<&'static str> {
    Some(match code {
        // ALLOC_FAILED
        3 => {
            "there is no memory left for it: use a smaller batch_size, or a GPU with more memory; \
             `nvidia-smi` shows who else uses this one"
        }
        // NOT_INITIALIZED
        1 => {
            "it cannot start: see with `nvidia-smi` whether memory is left, and with `hw2 doctor` \
             whether the driver is as new as libcublas; --cuda-lib-dir names the folder of another"
        }
        // ARCH_MISMATCH, NOT_SUPPORTED
        8 | 15 => {
            "this libcublas does not do that on this GPU: `hw2 doctor` shows which one is used, and \
             --cuda-lib-dir names the folder of another"
        }
        // EXECUTION_FAILED
        13 => {
            "see `dmesg` for Xid, NVIDIA's number of what happened; start the worker again, and on \
             another GPU if that comes again"
        }
        // INVALID_VALUE
        7 => "hw2 has asked for what does not exist: please report it with `hw2 doctor --json`",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_person_can_do_is_said() {
        for (code, part) in [
            (2, "smaller batch_size"),
            (3, "stubs"),
            (46, "nvidia-smi"),
            (100, "CUDA_VISIBLE_DEVICES"),
            (101, "hw2 doctor"),
            (209, "--cuda-lib-dir"),
            (214, "nvidia-smi -q -d ECC"),
            (222, "update the driver"),
            (700, "another GPU"),
            (702, "display"),
            (719, "Xid"),
            (802, "fabricmanager"),
            (803, "restart the machine"),
            (999, "dmesg"),
        ] {
            let words = words(code, Some(("some text".into(), "CUDA_ERROR_X".into())));
            assert!(words.starts_with("some text (CUDA_ERROR_X): "), "{words}");
            assert!(words.contains(part), "{code}: {words}");
        }
    }

    #[test]
    fn what_can_be_done_about_cublas_is_said() {
        let allocation = cublas_words(3, "CUBLAS_STATUS_ALLOC_FAILED");
        assert!(allocation.starts_with("cuBLAS: CUBLAS_STATUS_ALLOC_FAILED: there is no memory"));
        for (code, part) in [(1, "hw2 doctor"), (8, "--cuda-lib-dir"), (13, "Xid"), (7, "report")] {
            assert!(cublas_words(code, "X").contains(part), "{code}");
        }
        assert_eq!(
            cublas_words(14, "CUBLAS_STATUS_INTERNAL_ERROR"),
            "cuBLAS: CUBLAS_STATUS_INTERNAL_ERROR"
        );
    }

    #[test]
    fn what_nobody_knows_is_told_by_its_number() {
        assert_eq!(words(1, Some(("text".into(), "NAME".into()))), "text (NAME)");
        assert_eq!(words(4242, None), "error 4242 of the driver, which has no name for it");
    }
}
