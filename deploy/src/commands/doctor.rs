//! `hw2 doctor`: what this machine has to compute on, and what is missing.

use std::path::PathBuf;

use clap::Args;
use hw2_worker::device::cuda::{GpuSurvey, Survey, survey};
use serde::Serialize;

use crate::output::{self, Report};

/// Lists GPUs, driver and libraries, says what a worker would take, and what is missing
#[derive(Args, Debug)]
pub(crate) struct DoctorArgs {
    /// Where libcuda, libnvrtc and libcublas are, if not where the system has them
    #[arg(long, value_name = "DIR")]
    cuda_lib_dir: Option<PathBuf>,

    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

/// Looks and prints.
pub(crate) fn run(args: &DoctorArgs) -> anyhow::Result<()> {
    output::report(&Found(survey(args.cuda_lib_dir.as_deref())), args.json)
}

#[derive(Serialize)]
#[serde(transparent)]
struct Found(Survey);

impl Report for Found {
    fn text(&self) -> String {
        let Survey { driver, gpus, failing, auto } = &self.0;
        let driver = match driver {
            Ok(version) => format!("driver   runs CUDA {version} and older"),
            Err(problem) => format!("driver   {problem}"),
        };
        let auto = match auto {
            Ok(gpu) => format!("--device auto takes GPU {gpu}"),
            Err(problem) => format!("--device auto takes the CPU: {problem}"),
        };
        let gpus = gpus.iter().map(gpu_text).chain(failing.iter().cloned());
        std::iter::once(driver).chain(gpus).chain([auto]).collect::<Vec<_>>().join("\n")
    }
}

fn gpu_text(gpu: &GpuSurvey) -> String {
    let GpuSurvey { ordinal, name, uuid, compute_capability, memory_bytes, .. } = gpu;
    let GpuSurvey { is_taken, nvrtc, cublas, .. } = gpu;
    let taken = if *is_taken { ", another worker computes on it" } else { "" };
    let [nvrtc, cublas] = [nvrtc, cublas].map(|found| match found {
        Ok(path) => path.clone(),
        Err(missing) => format!("NONE: {missing}"),
    });
    format!(
        "GPU {ordinal}    {name}, compute capability {compute_capability}, {:.1} GiB{taken}\n\
         \u{20}        {uuid}\n\
         \u{20}        libnvrtc   {nvrtc}\n\
         \u{20}        libcublas  {cublas}",
        *memory_bytes as f64 / (1_u64 << 30) as f64
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_stands_out_and_what_would_be_taken_comes_last() {
        let gpu = |ordinal, is_taken, cublas: Result<&str, &str>| GpuSurvey {
            ordinal,
            name: "Tesla K80".into(),
            uuid: format!("GPU-{ordinal}"),
            compute_capability: "3.7".into(),
            memory_bytes: 12 << 30,
            is_taken,
            nvrtc: Ok("/cuda/libnvrtc.so.11.2 (CUDA 11)".into()),
            cublas: cublas.map(str::to_owned).map_err(str::to_owned),
        };
        let found = Found(Survey {
            driver: Ok("11.4".into()),
            gpus: vec![
                gpu(0, true, Err("libcublas.so is missing")),
                gpu(1, false, Ok("libcublas.so")),
            ],
            failing: vec!["GPU 2: it is lost".into()],
            auto: Ok(1),
        });
        assert_eq!(
            found.text(),
            "driver   runs CUDA 11.4 and older\n\
             GPU 0    Tesla K80, compute capability 3.7, 12.0 GiB, another worker computes on it\n\
             \u{20}        GPU-0\n\
             \u{20}        libnvrtc   /cuda/libnvrtc.so.11.2 (CUDA 11)\n\
             \u{20}        libcublas  NONE: libcublas.so is missing\n\
             GPU 1    Tesla K80, compute capability 3.7, 12.0 GiB\n\
             \u{20}        GPU-1\n\
             \u{20}        libnvrtc   /cuda/libnvrtc.so.11.2 (CUDA 11)\n\
             \u{20}        libcublas  libcublas.so\n\
             GPU 2: it is lost\n\
             --device auto takes GPU 1"
        );
        let (driver, auto) = (Err("no driver".into()), Err("no driver".into()));
        let found = Found(Survey { driver, gpus: Vec::new(), failing: Vec::new(), auto });
        assert_eq!(found.text(), "driver   no driver\n--device auto takes the CPU: no driver");
    }
}
