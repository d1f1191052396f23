//! The worker as a program of its own, without a server.

use std::process::Command;

#[test]
fn each_gpu_has_a_process_of_this_program() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hw2-worker"));
    command.args(["--ps", "unix:/nowhere.sock", "--patience-s", "0", "--gpu", "0,1"]);
    command.arg("--cuda-lib-dir").arg(hw2_softgpu::libraries()).env("HW2_SOFTGPU", "devices=2");
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for gpu in ["GPU 0 | ", "GPU 1 | "] {
        let mut lines = said.lines().filter(|line| line.starts_with(gpu));
        assert!(lines.any(|line| line.contains("no server at unix:/nowhere.sock")), "{gpu}{said}");
    }
}
