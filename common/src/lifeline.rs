//! A child's bond to the process that started it.
//!
//! The parent holds the writing end of the child's stdin and never writes. When the parent is gone,
//! however it went, stdin ends, and the child drains as on SIGTERM.

use std::io::{self, Read};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Time to drain before the process ends anyway: nobody is left who would kill it.
const DRAIN_MAX: Duration = Duration::from_secs(120);

/// Watches stdin from a thread of its own.
///
/// # Errors
/// No thread can be started.
pub fn hold() -> io::Result<()> {
    let thread = std::thread::Builder::new().name("hw2-lifeline".into());
    thread.spawn(drain_at_end_of_stdin)?;
    Ok(())
}

fn drain_at_end_of_stdin() {
    let mut byte = [0];
    while std::io::stdin().read(&mut byte).is_ok_and(|read| read > 0) {}
    tracing::warn!("the process that started this one is gone: draining");
    if let Err(error) = kill(Pid::this(), Signal::SIGTERM) {
        tracing::error!("cannot signal this process: {error}");
    }
    std::thread::sleep(DRAIN_MAX);
    tracing::error!("not drained after {} s: ending", DRAIN_MAX.as_secs());
    end_at_once();
}

/// Ends this process however busy it is. A driver of a GPU that hangs would hang at an exit in
/// order, too.
pub fn end_at_once() {
    if let Err(error) = kill(Pid::this(), Signal::SIGKILL) {
        tracing::error!("cannot end this process: {error}");
    }
}
