//! Times training and evaluation steps of the ten-layer network, for tuning the CPU device:
//! `cargo run --release --example bench_step -- BATCH THREADS REPEATS [primitives]`.

#![allow(clippy::print_stdout, clippy::unwrap_used)]

use hw2_common::model::ModelSpec;
use hw2_worker::bench_step::{StepBenchOptions, bench_step};
use hw2_worker::device::Choice;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number =
        |index: usize, default| arguments.get(index).map_or(default, |a| a.parse().unwrap());
    let options = StepBenchOptions {
        device: Choice::Cpu,
        network: ModelSpec::default().network(65).unwrap(),
        batch_size: number(0, 32) as usize,
        threads: number(1, 2) as usize,
        repeats: number(2, 7),
        primitives: arguments.len() > 3,
    };
    let bench = bench_step(&options).unwrap();
    println!(
        "{}, batch {}: train {:.1} img/s ({:.1} ms), eval {:.1} img/s, peak {} MiB",
        bench.device,
        bench.batch_size,
        bench.train_images_per_second,
        bench.train_step_ms,
        bench.evaluate_images_per_second,
        bench.peak_memory_bytes.unwrap_or(0) >> 20
    );
    println!("{:8.2} ms", bench.primitives.iter().map(|time| time.ms).sum::<f64>());
    for time in bench.primitives {
        let gflops = time.gflops.map(|gflops| format!("{gflops:6.1} GFLOP/s")).unwrap_or_default();
        println!("{:8.2} ms {:3} x {:60} {gflops}", time.ms, time.calls, time.primitive);
    }
}
