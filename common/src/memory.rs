//! How the memory of a server or a worker is laid out.
//!
//! A step goes through every vector several times, in buffers of a chunk each. The allocator takes each
//! of these from the system by itself, in pages of 4 KiB, and gives much of it back after the step. In
//! huge pages that it keeps, servers need a fifth less processor time for a step: fewer pages must be
//! looked up, and physical memory that is in pieces, on a machine that has been up for long, does not
//! show.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Read by glibc when a process starts, and only then; other C libraries have no such thing.
const VARIABLE: &str = "GLIBC_TUNABLES";
/// Take memory in large pieces of huge pages, even what is as large as a chunk, and keep it.
const TUNABLES: [(&str, u64); 4] = [
    ("glibc.malloc.hugetlb", 1),
    ("glibc.malloc.mmap_threshold", 1 << 30),
    ("glibc.malloc.top_pad", 64 << 20),
    ("glibc.malloc.trim_threshold", 10 << 30),
];

/// Has this process use huge pages: it begins anew, with the same arguments, unless it was told already
/// how to take memory. To be called before anything else; if it cannot be had, nothing happens.
pub fn use_huge_pages() {
    if !cfg!(target_env = "gnu") {
        return;
    }
    let (mut arguments, Ok(program)) = (std::env::args_os(), std::env::current_exe()) else {
        return;
    };
    let Some(tunables) = with_ours(std::env::var_os(VARIABLE).as_deref()) else { return };
    let mut again = Command::new(program);
    if let Some(name) = arguments.next() {
        again.arg0(name);
    }
    let error = again.args(arguments).env(VARIABLE, tunables).exec();
    tracing::debug!("without huge pages: {error}");
}

/// The tunables `given` and ours; none if they say already how to take memory.
fn with_ours(given: Option<&OsStr>) -> Option<OsString> {
    let given = given.unwrap_or_default().to_str()?;
    if given.contains("glibc.malloc.") {
        return None;
    }
    let ours = TUNABLES.map(|(name, value)| format!("{name}={value}"));
    let all = std::iter::once(given).filter(|given| !given.is_empty());
    Some(all.chain(ours.iter().map(String::as_str)).collect::<Vec<_>>().join(":").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_user_says_of_memory_stays() {
        let ours = with_ours(None).unwrap();
        assert!(ours.to_str().unwrap().starts_with("glibc.malloc.hugetlb=1:glibc.malloc.mmap_"));
        assert_eq!(with_ours(Some(OsStr::new(""))), Some(ours.clone()));
        assert_eq!(with_ours(Some(&ours)), None, "it begins anew once");
        assert_eq!(with_ours(Some(OsStr::new("glibc.malloc.check=3"))), None);
        let mut both = OsString::from("glibc.cpu.hwcaps=-AVX2:");
        both.push(&ours);
        assert_eq!(with_ours(Some(OsStr::new("glibc.cpu.hwcaps=-AVX2"))), Some(both));
    }
}
