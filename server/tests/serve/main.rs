//! Whole servers in this process, over real sockets, with workers that compute next to nothing.

#![allow(clippy::unwrap_used, reason = "all of this is tests")]

mod fake;
mod folders;
mod hostile;
mod one_checksum;
mod restarts;
mod shards;
mod streams;
mod worker;
