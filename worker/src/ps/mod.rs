//! The worker's side of the protocol: blocking calls for the thread that computes.
//!
//! Control messages and bulk data have a connection and an I/O thread each, so that a heartbeat
//! never waits behind a gradient. Only this module knows protobuf types.

mod client;
mod connect;
mod contribution;
mod directive;
mod error;
mod exchange;
mod held;
mod io_thread;
mod pull;
mod push;
mod session;
mod spans;

pub use client::{Client, Credentials, Hello};
pub use contribution::{Contribution, Outcome, StepResult};
pub use directive::{Credit, Directive};
pub use error::PsError;
pub use exchange::Exchange;
pub use held::{Destination, Held, Vector};
use pull::Pull;
use push::Push;
pub use session::{EvaluationReport, Session};
