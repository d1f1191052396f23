//! One file for each command.

pub(crate) mod bench;
pub(crate) mod config;
pub(crate) mod demo;
pub(crate) mod digest;
pub(crate) mod doctor;
pub(crate) mod eval;
pub(crate) mod predict;
pub(crate) mod server;
pub(crate) mod split;
pub(crate) mod status;
pub(crate) mod train;
pub(crate) mod verify;
pub(crate) mod worker;
