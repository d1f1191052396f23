//! The vocabulary of hw2: what the server, the workers and the front door must agree on.

#![forbid(unsafe_code)]

pub mod address;
pub mod checkpoint;
pub mod child;
pub mod config;
pub mod connection;
pub mod dataset;
pub mod grpc;
pub mod ids;
pub mod job;
pub mod layout;
pub mod lifeline;
pub mod logging;
pub mod memory;
pub mod model;
pub mod rng;
pub mod shard;
pub mod socket;
pub mod spans;
pub mod state;
pub mod trace;
pub mod turns;
pub mod wire;

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
