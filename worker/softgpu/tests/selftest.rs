//! The software GPU itself; see `selftest.cpp`, which has a case for each test.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The program with the cases.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let libraries = hw2_softgpu::libraries();
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("selftest");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/selftest.cpp");
        let path = libraries.display();
        let output = Command::new("g++")
            .args(["-std=c++17", "-O1", "-Wall", "-Wno-unused-result", "-o"])
            .args([&program, &source])
            .args([format!("-L{path}"), format!("-Wl,-rpath,{path}")])
            .args(["-lcuda", "-lnvrtc", "-lcublas"])
            .output()
            .expect("g++ runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        program
    })
}

macro_rules! cases {
    ($($case:ident)*) => {
        $(#[test]
        fn $case() {
            let output = Command::new(program()).arg(stringify!($case)).output().expect("it runs");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        })*
    };
}

cases! {
    barriers
    missing_barrier
    events
    missing_wait
    graphs
    missing_wait_in_a_graph
    pageable_memory
    pinned_memory_changed_too_early
    memory_is_nan_at_first
    shuffles
    divergent_barrier
    write_beyond_memory
    leading_dimension
}
