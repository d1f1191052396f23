//! The software GPU has no function that CUDA 11.4 lacks. All of the worker's way to a GPU is
//! tested on it, so that none can be called there either, and an old driver has all that a worker
//! needs.

use std::collections::BTreeSet;
use std::process::Command;

/// `symbols/list.py` makes it.
const CUDA_11_4: &str = include_str!("../symbols/cuda-11.4.txt");

/// The functions of CUDA that the software GPU's `library` exports.
fn exported(library: &str) -> BTreeSet<String> {
    let path = hw2_softgpu::libraries().join(library);
    let output = Command::new("nm").args(["-D", "--defined-only"]).arg(path).output();
    let output = output.expect("nm runs: it comes with g++");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).expect("names are ASCII");
    let names = lines.lines().filter_map(|line| line.split_whitespace().last());
    let is_cuda = |name: &&str| name.starts_with("cu") || name.starts_with("nvrtc");
    names.filter(is_cuda).map(str::to_owned).collect()
}

#[test]
fn every_function_is_one_of_cuda_11_4() {
    let known: BTreeSet<String> = CUDA_11_4.lines().map(str::to_owned).collect();
    assert!(!known.contains("cuCtxCreate_v4"), "that of CUDA 12.5");
    for (library, one) in [
        ("libcuda.so", "cuLaunchKernel"),
        ("libnvrtc.so", "nvrtcGetSupportedArchs"),
        ("libcublas.so", "cublasSgemm_v2"),
    ] {
        let exported = exported(library);
        assert!(exported.contains(one), "{library}: {exported:?}");
        let newer: Vec<_> = exported.difference(&known).collect();
        assert!(newer.is_empty(), "CUDA 11.4, and with it a K80, lacks {newer:?} of {library}");
    }
}
