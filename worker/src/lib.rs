//! The worker: reads images, runs the network forward and backward, pushes gradients.

pub mod args;
pub mod bench_input;
pub mod bench_step;
pub mod bench_wire;
pub mod classifier;
pub mod data;
pub mod device;
pub mod device_args;
mod each_gpu;
pub mod nn;
mod numeric_kind;
pub mod photo;
pub mod ps;
pub mod train;
pub mod verify;
