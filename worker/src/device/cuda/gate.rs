//! The compile gate: real NVRTC on every kernel for every kind of GPU, without a GPU.
//!
//! `HW2_NVRTC_DIR` is the folder of libnvrtc of CUDA 11.8 and 12.9, both as PyPI has them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use super::library::{self, Name};
use super::nvrtc::Nvrtc;
use super::source::{FILES, source};
use crate::device::Format;

/// Architectures, with the major version of CUDA whose compiler is asked.
const ARCHS: [(u32, u32); 10] = [
    (37, 11),
    (50, 11),
    (60, 11),
    (70, 11),
    (75, 11),
    (80, 11),
    (86, 11),
    (90, 11),
    (100, 12),
    (120, 12),
];

/// Registers of a multiprocessor are handed to warps in pieces of so many.
const REGISTER_PIECE: usize = 256;
const WARP: usize = 32;

/// What the assembler says of one kernel on one architecture.
#[derive(Clone, Copy, Debug, Default)]
struct Usage {
    registers: usize,
    shared_bytes: usize,
    /// Of a thread, in memory.
    local_bytes: usize,
    spilled_bytes: usize,
}

/// What a multiprocessor has: registers, threads, bytes of shared memory, blocks at most.
fn multiprocessor(arch: u32) -> [usize; 4] {
    let registers = if arch == 37 { 131_072 } else { 65_536 };
    let threads = match arch {
        75 => 1024,
        86 | 120 => 1536,
        _ => 2048,
    };
    let shared_kib = match arch {
        37 => 112,
        50 | 60 | 75 => 64,
        70 => 96,
        80 => 164,
        86 | 120 => 100,
        _ => 228,
    };
    let blocks = match arch {
        37 | 75 | 86 => 16,
        120 => 24,
        _ => 32,
    };
    [registers, threads, shared_kib << 10, blocks]
}

/// The part of a multiprocessor's threads, in percent, that blocks of `threads` can fill, as far as
/// their number lets them.
fn occupancy(usage: Usage, threads: usize, arch: u32) -> usize {
    let [registers, threads_max, shared, blocks_max] = multiprocessor(arch);
    let warp = (usage.registers * WARP).next_multiple_of(REGISTER_PIECE);
    let by_registers = registers / warp / threads.div_ceil(WARP);
    let by_shared = shared / usage.shared_bytes.max(1);
    let most = blocks_max.min(threads_max / threads);
    100 * by_registers.min(by_shared).min(most) * threads / threads_max
}

/// The kernels of an assembler's log.
fn usages(log: &str) -> BTreeMap<String, Usage> {
    let mut usages = BTreeMap::new();
    let mut kernel = String::new();
    for line in log.lines() {
        if let Some(rest) = line.split("Compiling entry function '").nth(1) {
            kernel = rest.split('\'').next().expect("a name ends").to_owned();
        }
        let number = |what: &str| -> usize {
            let before = line.split(what).next().filter(|before| before.len() < line.len());
            let word = before.and_then(|before| before.split_whitespace().last());
            word.map_or(0, |word| word.parse().expect("a number"))
        };
        let usage: &mut Usage = usages.entry(kernel.clone()).or_default();
        usage.registers += number(" registers");
        usage.shared_bytes += number(" bytes smem");
        usage.local_bytes += number(" bytes stack frame");
        usage.spilled_bytes += number(" bytes spill stores") + number(" bytes spill loads");
    }
    usages.remove("");
    usages
}

/// For each kernel what its file says of it: threads of a block, and the least occupancy in
/// percent.
fn claims() -> BTreeMap<String, (usize, usize)> {
    let mut claims = BTreeMap::new();
    for (file, text) in FILES {
        let mut claim = None;
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("// Occupancy: ") {
                claim = rest.split(' ').next().and_then(|percent| percent.parse().ok());
            }
        }
        for kernel in text.split("extern \"C\" __global__ void").skip(1) {
            let head = &kernel[..kernel.find('{').expect("a body")];
            let bounds = head.split("__launch_bounds__(").nth(1);
            let threads = bounds.map_or(256, |rest| {
                rest[..rest.find(')').expect("it ends")].parse().expect("a number")
            });
            let name = head.split(')').nth(usize::from(bounds.is_some()));
            let name = if bounds.is_some() { name.expect("a name") } else { head };
            let name = name[..name.find('(').unwrap_or(name.len())].trim().to_owned();
            let claim = claim.unwrap_or_else(|| panic!("{file} claims no occupancy"));
            claims.insert(name, (threads, claim));
        }
    }
    claims
}

#[test]
#[ignore = "needs NVRTC from PyPI: .ci/run installs it"]
fn every_kernel_compiles_for_every_gpu_without_spills() {
    let folder = std::env::var_os("HW2_NVRTC_DIR").map(PathBuf::from);
    let folder = folder.expect("HW2_NVRTC_DIR is the folder of libnvrtc of CUDA 11.8 and 12.9");
    let claims = claims();
    // Least and most registers, shared memory, and least occupancy.
    let mut rows: BTreeMap<&str, (usize, usize, usize, usize)> = BTreeMap::new();
    let builds =
        ARCHS.iter().flat_map(|arch| [Format::Full, Format::Bf16].map(|format| (arch, format)));
    for (&(arch, major), format) in builds {
        let found = library::candidates(Name::Nvrtc, &[major], std::slice::from_ref(&folder))
            .next()
            .unwrap();
        let nvrtc = Nvrtc::new(found.library).unwrap();
        let compiled = nvrtc.compile(&source(format), arch, &["--ptxas-options=-v"]).unwrap();
        assert!(!compiled.log.contains("warning"), "sm_{arch}: {}", compiled.log);
        let usages = usages(&compiled.log);
        assert!(usages.keys().eq(claims.keys()), "sm_{arch}: {usages:?}");
        for (kernel, (threads, claim)) in &claims {
            let usage = usages[kernel];
            assert_eq!(usage.spilled_bytes, 0, "{kernel} spills on sm_{arch}");
            // What is not in registers is in memory, spilled or not.
            assert_eq!(usage.local_bytes, 0, "{kernel} has a stack on sm_{arch}");
            let occupancy = occupancy(usage, *threads, arch);
            assert!(occupancy >= *claim, "{kernel} on sm_{arch}: {occupancy} % of {claim} %");
            let row = rows.entry(kernel).or_insert((usize::MAX, 0, usage.shared_bytes, 100));
            *row = (
                row.0.min(usage.registers),
                row.1.max(usage.registers),
                row.2.max(usage.shared_bytes),
                row.3.min(occupancy),
            );
        }
    }
    let mut table = String::from(
        "| kernel | registers | spills | shared bytes | occupancy |\n|---|---|---|---|---|\n",
    );
    for (kernel, (least, most, shared, occupancy)) in rows {
        writeln!(table, "| `{kernel}` | {least} to {most} | 0 | {shared} | {occupancy} % |")
            .unwrap();
    }
    let page = include_str!("../../../../ARCHITECTURE.md");
    assert!(page.contains(&table), "the table of ARCHITECTURE.md is to be:\n{table}");
}

#[test]
fn an_assemblers_log_is_understood() {
    let log = "ptxas info    : 24 bytes gmem\n\
        ptxas info    : Compiling entry function 'a_b' for 'sm_90'\n\
        ptxas info    : Function properties for a_b\n\
        ptxas         .     8 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads\n\
        ptxas info    : Used 30 registers, used 1 barriers, 4096 bytes smem\n";
    let usages = usages(log);
    let usage = usages["a_b"];
    assert_eq!((usages.len(), usage.registers, usage.shared_bytes), (1, 30, 4096));
    assert_eq!((usage.spilled_bytes, usage.local_bytes), (16, 8));
    assert_eq!(occupancy(usage, 256, 90), 100);
    assert_eq!(occupancy(Usage { registers: 64, ..usage }, 256, 90), 50);
    assert_eq!(occupancy(Usage { registers: 64, ..usage }, 256, 37), 100);
}
