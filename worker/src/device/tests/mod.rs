//! Every primitive on every device against the plain loops in f64.
