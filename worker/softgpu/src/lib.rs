//! A GPU for tests on machines without one.
//!
//! Three libraries in C++, with the names and the calls of libcuda, libnvrtc and libcublas as far
//! as the worker uses them, compute on the CPU. An unmodified program that is given their folder as
//! `--cuda-lib-dir` takes them for the real ones, and compiles and runs its kernels with them.

#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use sha2::{Digest, Sha256};

macro_rules! sources {
    ($($name:literal)*) => {
        /// Name and text of what the libraries are made from.
        const SOURCES: &[(&str, &str)] = &[$(($name, include_str!(concat!("../cpp/", $name)))),*];
    };
}

sources! {
    "cublas.cpp" "device.cpp" "driver.h" "errors.cpp" "fibers.h" "graph.cpp" "launch.h" "memory.cpp"
    "module.cpp" "nvrtc.cpp" "settings.cpp" "shim.h" "soft.h" "source.h" "stream.cpp"
}

/// A library, under the names that one of CUDA 11 has, and its sources.
#[derive(Debug)]
struct Library {
    name: &'static str,
    /// Name of the file.
    versioned: &'static str,
    /// What the loader knows it by once it is loaded.
    soname: &'static str,
    /// How far it is optimised: what multiplies must be quick, the others be built quickly.
    level: &'static str,
    sources: &'static [&'static str],
}

const LIBRARIES: [Library; 3] = [
    Library {
        name: "libcuda.so",
        versioned: "libcuda.so.1",
        // What cudarc asks for first, so that it is taken on a machine with a driver too.
        soname: "libcuda.so",
        level: "-O1",
        sources: &[
            "device.cpp",
            "errors.cpp",
            "graph.cpp",
            "memory.cpp",
            "module.cpp",
            "settings.cpp",
            "stream.cpp",
        ],
    },
    Library {
        name: "libnvrtc.so",
        versioned: "libnvrtc.so.11.2",
        soname: "libnvrtc.so.11.2",
        level: "-O1",
        sources: &["nvrtc.cpp"],
    },
    Library {
        name: "libcublas.so",
        versioned: "libcublas.so.11",
        soname: "libcublas.so.11",
        level: "-O3",
        sources: &["cublas.cpp"],
    },
];

const FLAGS: [&str; 8] = [
    "-std=c++17",
    "-fPIC",
    "-shared",
    "-fvisibility=hidden",
    "-ffp-contract=off",
    "-Wall",
    "-Wextra",
    "-Werror",
];

/// Those of a build that looks for what C++ does not define.
const SANITIZER_FLAGS: [&str; 4] =
    ["-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"];

/// The folder with the three libraries, which are built the first time.
///
/// # Panics
/// There is no g++, or it finds an error.
pub fn libraries() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| without(&[]))
}

/// The same of an older CUDA, which has no functions of these names.
///
/// # Panics
/// There is no such function anyway, or there is no g++, or it finds an error.
pub fn without(functions: &[&str]) -> PathBuf {
    for function in functions {
        let call = format!(" {function}(");
        let is_there = SOURCES.iter().any(|(_, text)| text.contains(&call));
        assert!(is_there, "the software GPU has no function {function}");
    }
    build(functions).unwrap_or_else(|error| panic!("the software GPU: {error}"))
}

/// More flags for g++: those of sanitizers if the environment has `HW2_SOFTGPU_SANITIZE=1`. A
/// program that loads such libraries must be built with them too, or preload the sanitizers.
pub fn sanitizer_flags() -> &'static [&'static str] {
    let is_wanted = std::env::var_os("HW2_SOFTGPU_SANITIZE").is_some_and(|value| value == "1");
    if is_wanted { &SANITIZER_FLAGS } else { &[] }
}

fn build(missing: &[&str]) -> io::Result<PathBuf> {
    let mut flags: Vec<String> =
        FLAGS.iter().chain(sanitizer_flags()).map(ToString::to_string).collect();
    // Under another name it is as if it were not there.
    flags.extend(missing.iter().map(|function| format!("-D{function}=soft_missing_{function}")));
    let folder = target_folder().join("softgpu").join(digest(&flags));
    fs::create_dir_all(&folder)?;
    // Tests run in several processes at once.
    let lock = File::create(folder.join("lock"))?;
    lock.lock()?;
    let complete = folder.join("complete");
    if !complete.exists() {
        SOURCES.iter().try_for_each(|(name, text)| fs::write(folder.join(name), text))?;
        LIBRARIES.iter().try_for_each(|library| compile(&folder, library, &flags))?;
        File::create(complete)?;
    }
    Ok(folder)
}

/// Of all that the libraries are made from.
fn digest(flags: &[String]) -> String {
    let mut hash = Sha256::new();
    SOURCES.iter().for_each(|(name, text)| hash.update(format!("{name}\n{text}")));
    flags.iter().for_each(|flag| hash.update(flag));
    LIBRARIES.iter().for_each(|library| hash.update(format!("{library:?}")));
    hash.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn compile(folder: &Path, library: &Library, flags: &[String]) -> io::Result<()> {
    // As one file, whose headers are read once.
    let all = folder.join(library.name).with_extension("all.cpp");
    let includes = library.sources.iter().map(|source| format!("#include \"{source}\"\n"));
    fs::write(&all, includes.collect::<String>())?;
    let output = Command::new("g++")
        .current_dir(folder)
        .env_remove("LD_PRELOAD")
        .args(flags)
        .arg(library.level)
        .arg(format!("-Wl,-soname,{}", library.soname))
        .args(["-o", library.versioned])
        .arg(all)
        .arg("-ldl")
        .output()
        .map_err(|error| io::Error::other(format!("g++ is needed to build it: {error}")))?;
    if !output.status.success() {
        return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    match symlink(library.versioned, folder.join(library.name)) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result,
    }
}

/// Cargo's folder, where this test lies; a temporary one for a program that was moved.
fn target_folder() -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    let is_target = |folder: &&Path| folder.join("CACHEDIR.TAG").exists();
    program.ancestors().find(is_target).map_or_else(std::env::temp_dir, Path::to_path_buf)
}
