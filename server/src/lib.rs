//! The parameter server: owns all state of a run, decides who computes what, and makes the updates.
//!
//! Control plane: `coordinator` decides, purely; `driver` carries it out. Data plane: `plane` adds,
//! updates and publishes vectors. Edge: `rpc` speaks the protocol. `folder` keeps what must last.

pub mod args;
mod clock;
mod coordinator;
pub mod curve;
mod driver;
mod folder;
mod handle;
mod listener;
mod plane;
mod rpc;
mod run;
mod shard;
mod trace;
mod usage;

pub use clock::Clock;
pub use coordinator::is_over;
pub use folder::CONFIG_FILE;
pub use listener::{ListenError, Listener};
pub use run::{Outcome, ServerSetup, serve};
pub use shard::{FollowerSetup, follow};
