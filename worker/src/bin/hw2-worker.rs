//! The worker as a program.

fn main() {}
