//! One child process: started in a process group of its own, its log lines passed on and kept.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Instant;

use anyhow::Context;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{ChildStderr, ChildStdin, Command};
use tokio::sync::mpsc::UnboundedSender;

use super::Message;
use super::supervisor::{Ending, Event, Role};

/// A running process, ended with its parent: see [`super::lifeline`].
pub(super) struct Child {
    group: Pid,
    _lifeline: ChildStdin,
}

impl Child {
    /// Starts `command`, appends what it says to `log_dir`/ROLE.log, and reports that and its end.
    ///
    /// # Errors
    /// The log cannot be opened or the process cannot be started.
    pub(super) fn start(
        role: Role,
        mut command: std::process::Command,
        log_dir: &Path,
        messages: UnboundedSender<Message>,
    ) -> anyhow::Result<Self> {
        let log_path = log_dir.join(format!("{role}.log"));
        let log = File::options().create(true).append(true).open(&log_path);
        let log = log.with_context(|| format!("cannot write the log {}", log_path.display()))?;
        // A group of its own, because Ctrl-C must reach the parent only.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let program = command.get_program().to_owned();
        let mut process = Command::from(command)
            .spawn()
            .with_context(|| format!("cannot start {role}: {}", program.display()))?;
        let lifeline = process.stdin.take().expect("stdin is piped");
        let stderr = process.stderr.take().expect("stderr is piped");
        let id = process.id().expect("it was just started and not waited for");
        let started = Instant::now();
        tokio::spawn(async move {
            pass_on(role, stderr, log, &messages).await;
            let status = process.wait().await.expect("nobody else waits for this child");
            let event = Event::Ended(role, ending(status), started.elapsed());
            // The receiver is gone only when the whole cluster is.
            let _ = messages.send(Message::Event(event));
        });
        Ok(Self { group: Pid::from_raw(id as i32), _lifeline: lifeline })
    }

    /// Signals the process and what it started. One that has ended already is no error.
    pub(super) fn signal(&self, signal: Signal) {
        if let Err(error) = killpg(self.group, signal) {
            tracing::debug!("signal {signal} to group {}: {error}", self.group);
        }
    }
}

/// `program` with `arguments`, which say all there is: it reads no config from its `environment`.
pub(super) fn command(
    program: &Path,
    arguments: &[OsString],
    environment: impl Iterator<Item = (OsString, OsString)>,
) -> std::process::Command {
    let mut command = std::process::Command::new(program);
    command.args(arguments);
    for (name, _) in environment.filter(|(name, _)| name.to_string_lossy().starts_with("HW2_")) {
        command.env_remove(name);
    }
    command
}

async fn pass_on(role: Role, stderr: ChildStderr, mut log: File, to: &UnboundedSender<Message>) {
    let mut reader = BufReader::new(stderr);
    let mut bytes = Vec::new();
    while reader.read_until(b'\n', &mut bytes).await.is_ok_and(|read| read > 0) {
        // A full disk must not end the run: the line is still shown.
        let _ = log.write_all(&bytes);
        let line = String::from_utf8_lossy(&bytes).trim_end().to_string();
        let _ = to.send(Message::Line(role, line));
        bytes.clear();
    }
}

fn ending(status: ExitStatus) -> Ending {
    match (status.code(), status.signal()) {
        (Some(code), _) => Ending::Exited(code),
        (None, signal) => Ending::Killed(signal.unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    fn shell(script: &str, log_dir: &Path) -> (Child, UnboundedReceiver<Message>) {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", script]);
        let (sender, receiver) = unbounded_channel();
        (Child::start(Role::Worker(1), command, log_dir, sender).unwrap(), receiver)
    }

    async fn lines_and_ending(mut messages: UnboundedReceiver<Message>) -> (Vec<String>, Ending) {
        let mut lines = Vec::new();
        loop {
            match messages.recv().await.expect("an end comes before the channel closes") {
                Message::Line(_, line) => lines.push(line),
                Message::Event(Event::Ended(_, ending, _)) => return (lines, ending),
                other => panic!("{other:?} from a child"),
            }
        }
    }

    #[tokio::test]
    async fn lines_and_exit_code_are_reported_and_the_log_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (_child, messages) = shell("echo one >&2; echo two >&2; exit 3", dir.path());
        let (lines, ending) = lines_and_ending(messages).await;
        assert_eq!((lines, ending), (vec!["one".into(), "two".into()], Ending::Exited(3)));
        let log = std::fs::read_to_string(dir.path().join("worker-1.log")).unwrap();
        assert_eq!(log, "one\ntwo\n");
    }

    #[tokio::test]
    async fn a_signal_reaches_the_child() {
        let dir = tempfile::tempdir().unwrap();
        let (child, mut messages) = shell("echo ready >&2; exec sleep 600", dir.path());
        assert!(matches!(messages.recv().await, Some(Message::Line(..))));
        child.signal(Signal::SIGTERM);
        assert_eq!(lines_and_ending(messages).await.1, Ending::Killed(Signal::SIGTERM as i32));
        child.signal(Signal::SIGTERM);
    }

    #[tokio::test]
    async fn dropping_the_child_ends_its_stdin() {
        let dir = tempfile::tempdir().unwrap();
        let (child, messages) = shell("cat; echo gone >&2", dir.path());
        drop(child);
        assert_eq!(lines_and_ending(messages).await, (vec!["gone".into()], Ending::Exited(0)));
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let command = std::process::Command::new("/nonexistent/hw2");
        let (sender, _receiver) = unbounded_channel();
        let result = Child::start(Role::Server, command, dir.path(), sender);
        let error = result.err().expect("it cannot start").to_string();
        assert_eq!(error, "cannot start server: /nonexistent/hw2");
    }

    #[test]
    fn a_child_reads_no_config_from_the_environment() {
        let environment = ["PATH", "HW2_SEED"].map(|name| (name.into(), "1".into()));
        let command = command(Path::new("hw2"), &["server".into()], environment.into_iter());
        assert_eq!(command.get_args().collect::<Vec<_>>(), ["server"]);
        let changes: Vec<_> = command.get_envs().collect();
        assert_eq!(changes, [("HW2_SEED".as_ref(), None)]);
    }
}
