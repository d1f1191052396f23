//! The edge: the only part of the server that knows protobuf types. It turns messages into events
//! for the driver and answers back into messages, and decides nothing.

mod control;
mod convert;
mod data;
mod desk;
mod followers;
mod guarded;
mod judge;
mod line;
mod net;
mod pull;
mod push;
mod waiting;

pub(crate) use desk::{Coordinating, Desk, Served};
pub(crate) use followers::{Enlisted, Link, enlist};
pub(crate) use judge::Judge;
pub(crate) use net::Edge;
pub(crate) use push::Receiver;
