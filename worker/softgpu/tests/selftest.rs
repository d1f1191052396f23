//! The software GPU itself; see `selftest`, which has a case for each test.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

const SOURCES: [&str; 7] = ["main", "threads", "streams", "graphs", "memory", "contexts", "cublas"];

/// The program with the cases.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let libraries = hw2_softgpu::libraries();
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("selftest");
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/selftest");
        let path = libraries.display();
        let includes = SOURCES.map(|source| format!("#include \"{source}.cpp\"\n")).concat();
        let all = program.with_extension("cpp");
        std::fs::write(&all, includes).expect("the folder is there");
        let output = Command::new("g++")
            .args(["-std=c++17", "-O1", "-Wall", "-Wextra", "-I"])
            .arg(folder)
            .args(hw2_softgpu::sanitizer_flags())
            .arg("-o")
            .args([&program, &all])
            .args([format!("-L{path}"), format!("-Wl,-rpath,{path}")])
            .args(["-lcuda", "-lnvrtc", "-lcublas"])
            .output()
            .expect("g++ runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        program
    })
}

/// Runs one case, on a software GPU with `settings`.
fn run(case: &str, settings: &str) -> Output {
    let mut command = Command::new(program());
    command.arg(case).env("HW2_SOFTGPU", settings);
    // What sanitizers find ends the process as what the libraries find does.
    command.env("ASAN_OPTIONS", "abort_on_error=1:detect_leaks=0");
    command.env("UBSAN_OPTIONS", "abort_on_error=1:print_stacktrace=1");
    command.output().expect("it runs")
}

macro_rules! cases {
    ($($case:ident $($settings:literal)?)*) => {
        $(#[test]
        fn $case() {
            let output = run(stringify!($case), concat!($($settings)?));
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        })*

        #[test]
        fn every_case_is_a_test() {
            let output = Command::new(program()).output().expect("it runs");
            let mut cases = vec![$(stringify!($case)),*];
            cases.sort_unstable();
            assert_eq!(String::from_utf8_lossy(&output.stdout).lines().collect::<Vec<_>>(), cases);
        }
    };
}

cases! {
    barriers
    missing_barrier
    shuffles
    divergent_barrier
    different_barriers
    different_barriers_of_a_warp
    different_shuffles
    each_block_has_its_own_order
    a_barrier_changes_the_order
    no_seed
    warps_run_ahead
    code_knows_its_gpu "cc=7.0"
    code_for_another_gpu "cc=8.6"
    launch_bounds
    what_sanitizers_find
    events
    missing_wait
    a_stream_that_is_gone
    graphs
    missing_wait_in_a_graph
    what_a_capture_refuses
    what_a_relaxed_capture_allows
    captures_that_do_not_end_well
    a_stream_that_goes_while_it_captures
    a_graph_reads_host_memory_when_it_runs
    launches_of_a_graph_take_turns
    a_download_of_a_graph
    pageable_memory
    pinned_memory_changed_too_early
    pinned_memory_read_too_early
    memory_is_nan_at_first
    write_beyond_memory
    write_to_freed_memory
    copies_beyond_memory
    pools "cc=6.0 driver=11020"
    missing_wait_for_an_allocation
    missing_wait_before_memory_is_freed
    no_name_for_what_is_freed
    no_pools "cc=3.7"
    a_call_needs_a_context
    each_gpu_has_a_context "devices=2"
    a_context_that_is_released
    an_error_stays "devices=2 lose=2 fail_with=214"
    a_launch_that_fails "fail_launch=2 fail_with=700"
    names_of_errors
    leading_dimension
    operands_in_one_allocation
    precisions
    sums_in_the_format_of_the_result
    precisions_that_do_not_go_together
    precisions_of_an_older_gpu "cc=7.0"
    no_gemm_ex "cc=3.7"
    workspace_of_a_capture
    the_workspace_is_cublas_own
}

/// The libraries are found by the names that CUDA 11 has, and lack what is asked to be missing.
#[test]
fn an_older_cuda() {
    let folder = hw2_softgpu::without(&["cuGraphLaunch"]);
    let symbols = |library: &str| {
        let mut command = Command::new("nm");
        command.args(["-D", "--defined-only"]).arg(folder.join(library));
        String::from_utf8(command.output().expect("nm runs").stdout).unwrap()
    };
    let symbols = ["libcuda.so.1", "libnvrtc.so.11.2", "libcublas.so.11"].map(symbols);
    assert!(
        symbols[0].contains(" cuGraphExecDestroy\n") && !symbols[0].contains(" cuGraphLaunch\n")
    );
    assert!(symbols[1].contains(" nvrtcGetCUBIN\n") && symbols[2].contains(" cublasSgemm_v2\n"));
}

#[test]
#[should_panic(expected = "no function cuLaunch")]
fn a_function_that_is_missing_anyway() {
    hw2_softgpu::without(&["cuLaunch"]);
}
