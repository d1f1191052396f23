//! The worker: reads images, runs the network forward and backward, pushes gradients.

pub mod data;
pub mod ps;
