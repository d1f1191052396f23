//! The parameter server: owns all state of a run, decides who computes what, and makes the updates.

mod coordinator;
pub mod curve;
mod plane;
