//! The cluster's child processes: their command lines, and their logs in the run's folder.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use anyhow::Context;
use hw2_common::child::{Child, Said};
use tokio::sync::mpsc::UnboundedSender;

use super::Message;
use super::supervisor::{Event, Role};

/// Starts `command`, appends what it says to `log_dir`/ROLE.log, and reports that and its end.
///
/// # Errors
/// The log cannot be opened or the process cannot be started.
pub(super) fn start(
    role: Role,
    command: std::process::Command,
    log_dir: &Path,
    messages: UnboundedSender<Message>,
) -> anyhow::Result<Child> {
    let log_path = log_dir.join(format!("{role}.log"));
    let log = File::options().create(true).append(true).open(&log_path);
    let mut log = log.with_context(|| format!("cannot write the log {}", log_path.display()))?;
    let program = command.get_program().to_owned();
    let report = move |said| {
        let message = match said {
            Said::Line(line) => {
                // A full disk must not end the run: the line is still shown.
                let _ = log.write_all(format!("{line}\n").as_bytes());
                Message::Line(role, line)
            }
            Said::Ended(ending, lived) => Message::Event(Event::Ended(role, ending, lived)),
        };
        // The receiver is gone only when the whole cluster is.
        let _ = messages.send(message);
    };
    Child::start(command, report)
        .with_context(|| format!("cannot start {role}: {}", program.display()))
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

#[cfg(test)]
mod tests {
    use super::*;
    use hw2_common::child::Ending;
    use tokio::sync::mpsc::unbounded_channel;

    #[tokio::test]
    async fn what_a_child_says_is_reported_and_the_log_kept() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = std::process::Command::new("sh");
        command.args(["-c", "echo one >&2; echo two >&2; exit 3"]);
        let (sender, mut messages) = unbounded_channel();
        let _child = start(Role::Worker(1), command, dir.path(), sender).unwrap();
        for expected in ["one", "two"] {
            let Some(Message::Line(Role::Worker(1), line)) = messages.recv().await else {
                panic!("no line");
            };
            assert_eq!(line, expected);
        }
        let Some(Message::Event(Event::Ended(role, ending, _))) = messages.recv().await else {
            panic!("no end");
        };
        assert_eq!((role, ending), (Role::Worker(1), Ending::Exited(3)));
        let log = std::fs::read_to_string(dir.path().join("worker-1.log")).unwrap();
        assert_eq!(log, "one\ntwo\n");
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let command = std::process::Command::new("/nonexistent/hw2");
        let (sender, _receiver) = unbounded_channel();
        let result = start(Role::Server, command, dir.path(), sender);
        let error = result.expect_err("it cannot start").to_string();
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
