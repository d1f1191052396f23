//! One child process: started in a process group of its own, its log lines passed on.

use std::fmt;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{ChildStderr, ChildStdin, Command};

/// Exit code of a worker that left, or of a whole run that was stopped, in good order before the
/// run was over (sysexits' EX_TEMPFAIL), so that whoever started it can tell.
pub const EXIT_EARLY: u8 = 75;

/// Signals so close together are one request: `timeout` and others signal a process and its group.
pub const ONE_REQUEST: Duration = Duration::from_secs(1);

const LEFT_EARLY: i32 = EXIT_EARLY as i32;
/// Exit code of a process that panicked: an accident like a kill, not a decision.
const PANIC_CODE: i32 = 101;

/// A running process, ended with its parent: see [`crate::lifeline`].
#[derive(Debug)]
pub struct Child {
    group: Pid,
    _lifeline: ChildStdin,
}

/// What comes from a child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// A line of its log, which is its stderr.
    Line(String),
    /// It ended after it had run for this long. Nothing comes after that.
    Ended(Ending, Duration),
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Exit code.
    Exited(i32),
    /// Signal number.
    Killed(i32),
}

impl Child {
    /// Starts `command` and reports what comes from it, in tasks of the tokio runtime that must be
    /// there. Dropped, it ends the child's stdin and nothing else.
    ///
    /// # Errors
    /// The process cannot be started.
    pub fn start(
        mut command: std::process::Command,
        mut report: impl FnMut(Said) + Send + 'static,
    ) -> io::Result<Self> {
        // A group of its own, because Ctrl-C must reach the parent only.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = Command::from(command).spawn()?;
        let lifeline = process.stdin.take().expect("stdin is piped");
        let stderr = process.stderr.take().expect("stderr is piped");
        let id = process.id().expect("it was just started and not waited for");
        let started = Instant::now();
        tokio::spawn(async move {
            pass_on(stderr, &mut report).await;
            let status = process.wait().await.expect("nobody else waits for this child");
            report(Said::Ended(Ending::of(status), started.elapsed()));
        });
        Ok(Self { group: Pid::from_raw(id as i32), _lifeline: lifeline })
    }

    /// Signals the process and what it started. One that has ended already is no error, but must
    /// not have been reported so: its id may be another's by then.
    pub fn signal(&self, signal: Signal) {
        if let Err(error) = killpg(self.group, signal) {
            tracing::debug!("signal {signal} to group {}: {error}", self.group);
        }
    }
}

async fn pass_on(stderr: ChildStderr, report: &mut impl FnMut(Said)) {
    let mut reader = BufReader::new(stderr);
    let mut bytes = Vec::new();
    while reader.read_until(b'\n', &mut bytes).await.is_ok_and(|read| read > 0) {
        report(Said::Line(String::from_utf8_lossy(&bytes).trim_end().to_owned()));
        bytes.clear();
    }
}

impl Ending {
    fn of(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Exited(code),
            (None, signal) => Self::Killed(signal.unwrap_or_default()),
        }
    }

    /// Whether something other than its own decision ended the process.
    pub fn is_accident(self) -> bool {
        matches!(self, Self::Killed(_) | Self::Exited(PANIC_CODE))
    }

    /// Whether it is that of a worker that did what it should, to the end of the run or not.
    pub fn is_in_order(self) -> bool {
        matches!(self, Self::Exited(0 | LEFT_EARLY))
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(0) => write!(f, "ended in good order"),
            Self::Exited(LEFT_EARLY) => write!(f, "left before the run was over"),
            Self::Exited(PANIC_CODE) => write!(f, "panicked"),
            Self::Exited(code) => write!(f, "ended with exit code {code}"),
            Self::Killed(signal) => write!(f, "was killed by signal {signal}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    fn shell(script: &str) -> (Child, UnboundedReceiver<Said>) {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", script]);
        let (sender, receiver) = unbounded_channel();
        // The receiver is gone only when the test is over.
        let report = move |said| drop(sender.send(said));
        (Child::start(command, report).unwrap(), receiver)
    }

    async fn lines_and_ending(mut messages: UnboundedReceiver<Said>) -> (Vec<String>, Ending) {
        let mut lines = Vec::new();
        loop {
            match messages.recv().await.expect("an end comes before the channel closes") {
                Said::Line(line) => lines.push(line),
                Said::Ended(ending, _) => return (lines, ending),
            }
        }
    }

    #[tokio::test]
    async fn lines_and_exit_code_are_reported() {
        let (_child, messages) = shell("echo one >&2; echo two >&2; exit 3");
        let (lines, ending) = lines_and_ending(messages).await;
        assert_eq!((lines, ending), (vec!["one".into(), "two".into()], Ending::Exited(3)));
    }

    #[tokio::test]
    async fn a_signal_reaches_the_child() {
        let (child, mut messages) = shell("echo ready >&2; exec sleep 600");
        assert!(matches!(messages.recv().await, Some(Said::Line(_))));
        child.signal(Signal::SIGTERM);
        assert_eq!(lines_and_ending(messages).await.1, Ending::Killed(Signal::SIGTERM as i32));
        child.signal(Signal::SIGTERM);
    }

    #[tokio::test]
    async fn dropping_the_child_ends_its_stdin() {
        let (child, messages) = shell("cat; echo gone >&2");
        drop(child);
        assert_eq!(lines_and_ending(messages).await, (vec!["gone".into()], Ending::Exited(0)));
    }
}
