//! One file for each command.

pub(crate) mod config;
pub(crate) mod digest;
pub(crate) mod split;
pub(crate) mod status;
