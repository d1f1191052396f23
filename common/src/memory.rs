//! How the memory of a server or a worker is laid out.
//!
//! A step goes through every vector several times, in buffers of a chunk each. The allocator takes
//! many of these from the system one by one, in pages of 4 KiB, and gives much back after the step.
//! In huge pages that it keeps, fewer pages must be looked up, and it does not show when physical
//! memory is in pieces, on a machine that has been up for long. ARCHITECTURE.md, "Protocol", has
//! what it gains.
//!
//! Who says something of glibc's malloc in the environment variable, such as
//! `GLIBC_TUNABLES=glibc.malloc.hugetlb=0`, has that alone.

use std::convert::Infallible;
use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStringExt;

use nix::unistd::execve;

/// Read by glibc when a process starts, and only then; other C libraries have no such thing.
const VARIABLE: &str = "GLIBC_TUNABLES";
/// Take memory in large pieces of huge pages, even what is as large as a chunk, and keep up to 10
/// GiB of what is freed.
const TUNABLES: [(&str, u64); 4] = [
    ("glibc.malloc.hugetlb", 1),
    ("glibc.malloc.mmap_threshold", 1 << 30),
    ("glibc.malloc.top_pad", 64 << 20),
    ("glibc.malloc.trim_threshold", 10 << 30),
];
/// Set in a process that has begun anew: of one with more rights than its user, the system drops
/// the tunables.
const BEGUN_ANEW: &str = "_HW2_BEGUN_ANEW";

/// Has this process use huge pages: it begins anew, with the same arguments, unless it was told
/// already how to take memory. To be called before anything else; if it cannot be had, nothing
/// happens.
pub fn use_huge_pages() {
    if !cfg!(target_env = "gnu") || std::env::var_os(BEGUN_ANEW).is_some() {
        return;
    }
    if let Some(tunables) = with_ours(std::env::var_os(VARIABLE).as_deref()) {
        // Without it all works as well, and only takes longer.
        let _ = begin_anew(tunables);
    }
}

/// As `std`'s own exec, which however changes how signals are handled even when it fails.
fn begin_anew(tunables: OsString) -> io::Result<Infallible> {
    let text = |text: OsString| CString::new(text.into_vec());
    let program = text(std::env::current_exe()?.into())?;
    let arguments: Vec<_> = std::env::args_os().map(text).collect::<Result<_, _>>()?;
    let others = std::env::vars_os().filter(|(name, _)| name != VARIABLE);
    let ours = [(VARIABLE.into(), tunables), (BEGUN_ANEW.into(), "1".into())];
    let environment = others.chain(ours).map(|(mut entry, value)| {
        entry.push("=");
        entry.push(value);
        text(entry)
    });
    let environment: Vec<_> = environment.collect::<Result<_, _>>()?;
    Ok(execve(&program, &arguments, &environment)?)
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
