//! The log of a program: on stderr, as RUST_LOG says.

use tracing_subscriber::EnvFilter;
pub use tracing_subscriber::filter::LevelFilter;

/// Starts the log. `level` holds where RUST_LOG says nothing.
pub fn start(level: LevelFilter) {
    let filter = EnvFilter::builder().with_default_directive(level.into()).from_env_lossy();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false)
        // It would complain on stderr, and panic when that is what is broken.
        .log_internal_errors(false)
        .init();
}
