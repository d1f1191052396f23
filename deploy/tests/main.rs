//! Tests with real processes. A file of tests here needs a line below to be run.

#![cfg(test)]

mod common;

mod bad_input;
mod front_door;
mod gpu_plan;
mod manifests;
mod one_checksum;
mod precision;
mod sbatch;
mod several_gpus;
mod shards;
mod slurm;
mod software_gpu;
mod trace;
