//! A GPU for tests on machines without one.
//!
//! Three libraries in C++, with the names and the calls of libcuda, libnvrtc and libcublas as far as
//! the worker uses them, compute on the CPU. An unmodified program that is given their folder as
//! `--cuda-lib-dir` takes them for the real ones, and compiles and runs its kernels with them.

#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use sha2::{Digest, Sha256};

/// Name and text of what the libraries are made from.
const SOURCES: [(&str, &str); 5] = [
    ("cuda.cpp", include_str!("../cpp/cuda.cpp")),
    ("nvrtc.cpp", include_str!("../cpp/nvrtc.cpp")),
    ("cublas.cpp", include_str!("../cpp/cublas.cpp")),
    ("soft.h", include_str!("../cpp/soft.h")),
    ("shim.h", include_str!("../cpp/shim.h")),
];

/// Source and name of each library.
const LIBRARIES: [(&str, &str); 3] =
    [("cuda.cpp", "libcuda.so"), ("nvrtc.cpp", "libnvrtc.so"), ("cublas.cpp", "libcublas.so")];

const FLAGS: [&str; 9] = [
    "-std=c++17",
    "-O3",
    "-fPIC",
    "-shared",
    "-fvisibility=default",
    "-ffp-contract=off",
    "-Wall",
    "-Wextra",
    "-Werror",
];

/// The folder with the three libraries, which are built the first time.
///
/// # Panics
/// There is no g++, or it finds an error.
pub fn libraries() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| build().unwrap_or_else(|error| panic!("the software GPU: {error}")))
}

fn build() -> io::Result<PathBuf> {
    let mut hash = Sha256::new();
    SOURCES.iter().for_each(|(name, text)| hash.update(format!("{name}\n{text}")));
    FLAGS.iter().for_each(|flag| hash.update(flag));
    let digest: String = hash.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    let folder = target_folder().join("softgpu").join(digest);
    fs::create_dir_all(&folder)?;
    // Tests run in several processes at once.
    let lock = File::create(folder.join("lock"))?;
    lock.lock()?;
    let complete = folder.join("complete");
    if !complete.exists() {
        SOURCES.iter().try_for_each(|(name, text)| fs::write(folder.join(name), text))?;
        LIBRARIES.iter().try_for_each(|(source, library)| compile(&folder, source, library))?;
        File::create(complete)?;
    }
    Ok(folder)
}

fn compile(folder: &Path, source: &str, library: &str) -> io::Result<()> {
    let output = Command::new("g++")
        .current_dir(folder)
        .args(FLAGS)
        .arg(format!("-Wl,-soname,{library}"))
        .args(["-o", library, source, "-ldl"])
        .output()
        .map_err(|error| io::Error::other(format!("g++ is needed to build it: {error}")))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned())),
    }
}

/// Cargo's folder, where this test lies; a temporary one for a program that was moved.
fn target_folder() -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    let is_target = |folder: &&Path| folder.join("CACHEDIR.TAG").exists();
    program.ancestors().find(is_target).map_or_else(std::env::temp_dir, Path::to_path_buf)
}
