//! The worker: reads images, runs the network forward and backward, pushes gradients.

pub mod data;
pub mod device;
pub mod nn;
pub mod ps;
pub mod verify;
