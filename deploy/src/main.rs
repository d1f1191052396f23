//! hw2: the front door.

fn main() {}
