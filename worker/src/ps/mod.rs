//! The worker's side of the protocol: blocking calls for the thread that computes.
//!
//! Control messages and each server's bulk data have a connection and an I/O thread each, so that a
//! heartbeat never waits behind a gradient. Only this module knows protobuf types.

mod client;
mod connect;
mod contribution;
mod destination;
mod directive;
mod error;
mod exchange;
mod io_thread;
mod pull;
mod push;
mod reach;
mod servers;
mod session;

pub use client::{Client, Credentials, Hello};
pub use contribution::{Contribution, StepResult};
pub use destination::{Destination, Vector};
pub use directive::{Credit, Directive};
pub use error::PsError;
pub use exchange::Exchange;
use pull::Pull;
use push::Push;
pub use reach::{Backoff, reach};
pub use session::{EvaluationReport, Session};
