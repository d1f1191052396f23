//! The edge: the only part of the server that knows protobuf types. It turns messages into events
//! for the driver and answers back into messages, and decides nothing.

mod control;
mod convert;
mod data;
mod guarded;
mod net;
mod pull;
mod push;
mod waiting;

pub(crate) use net::Edge;
