//! The parameter server as a program.

fn main() {}
