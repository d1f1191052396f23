//! Whole servers in this process, over real sockets, with workers that compute next to nothing.

mod fake;
mod one_checksum;
