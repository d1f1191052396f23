//! Kinds of GPUs: what the plan of their traffic depends on.
//!
//! Constants, never what a driver says: the size of a strip of columns decides the order of sums.

use std::str::FromStr;

use hw2_common::config::Precision;

use super::lower::Limits;

/// A kind of GPU, as its maker describes it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GpuKind {
    /// Its name, for people.
    pub name: &'static str,
    /// Compute capability: 70 for 7.0.
    pub arch: u32,
    /// Bytes of the last level of cache.
    pub l2_bytes: usize,
    /// Bytes a second from and to its memory.
    pub bytes_per_second: f64,
    /// Multiplications and additions a second in fp32, tf32 and bf16, as far as it has them.
    flops_per_second: [Option<f64>; 3],
}

/// In the order of their architectures. Rates are the peaks of the makers' data sheets; a K80 is
/// one of its two GPUs.
const KINDS: [GpuKind; 4] = [
    GpuKind {
        name: "k80",
        arch: 37,
        l2_bytes: 3 << 19,
        bytes_per_second: 240e9,
        flops_per_second: [Some(4.37e12), None, None],
    },
    GpuKind {
        name: "v100",
        arch: 70,
        l2_bytes: 6 << 20,
        bytes_per_second: 900e9,
        flops_per_second: [Some(15.7e12), None, None],
    },
    GpuKind {
        name: "a100",
        arch: 80,
        l2_bytes: 40 << 20,
        bytes_per_second: 1555e9,
        flops_per_second: [Some(19.5e12), Some(156e12), Some(312e12)],
    },
    GpuKind {
        name: "h100",
        arch: 90,
        l2_bytes: 50 << 20,
        bytes_per_second: 3350e9,
        flops_per_second: [Some(66.9e12), Some(494.7e12), Some(989.4e12)],
    },
];

/// Columns of a GPU whose L2 is too small to keep those of one image: some images at a time, so
/// that the products are large.
const COLUMN_BYTES_MIN: usize = 32 << 20;

impl GpuKind {
    /// The newest kind that is not newer than `arch`.
    pub(super) fn of(arch: u32) -> Self {
        KINDS.into_iter().rev().find(|kind| kind.arch <= arch).unwrap_or(KINDS[0])
    }

    /// Multiplications and additions a second, if it has that precision.
    pub(super) fn flops_per_second(&self, precision: Precision) -> Option<f64> {
        let [fp32, tf32, bf16] = self.flops_per_second;
        match precision {
            Precision::Fp32 => fp32,
            Precision::Tf32 => tf32,
            Precision::Bf16 => bf16,
        }
    }

    pub(super) fn limits(&self) -> Limits {
        let kept = self.l2_bytes / 2;
        Limits { column_bytes: if kept >= COLUMN_BYTES_MIN / 2 { kept } else { COLUMN_BYTES_MIN } }
    }
}

impl FromStr for GpuKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = KINDS.map(|kind| kind.name).join(", ");
        let found = KINDS.into_iter().find(|kind| kind.name == text);
        found.ok_or_else(|| format!("`{text}` is no GPU of which the rates are known: {names}"))
    }
}
