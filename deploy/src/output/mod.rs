//! All that hw2 prints: results on stdout, everything else on stderr.

mod format;
mod progress;
mod table;

use std::borrow::Cow;
use std::io::{ErrorKind, Write};
use std::path::Path;

use anyhow::Context;
use serde::Serialize;

pub(crate) use format::{count, duration, fraction, rate, significant};
pub(crate) use progress::{Counter, Display, Snapshot};
pub(crate) use table::{Column, Table};

/// A command's result: figures for programs, text for people.
pub(crate) trait Report: Serialize {
    /// The lines for people, without a newline at the end.
    fn text(&self) -> String;
}

/// Prints a result on stdout: its text, or with `json` one line of JSON.
///
/// # Errors
/// When stdout cannot be written. A reader that has gone away (`hw2 config | head`) is no error.
pub(crate) fn report(report: &impl Report, json: bool) -> anyhow::Result<()> {
    let text = if json {
        serde_json::to_string(report).context("the result does not become JSON")?
    } else {
        report.text()
    };
    line(&text)
}

/// Prints lines on stdout.
///
/// # Errors
/// As [`report`].
pub(crate) fn line(text: &str) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    match writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to stdout")
        }
        _ => Ok(()),
    }
}

/// This program as it was typed, so that what it prints can be typed too.
pub(crate) fn program() -> String {
    word(std::env::args().next().unwrap_or_else(|| "hw2".into()))
}

/// A path as it is typed into a shell.
pub(crate) fn typed(path: &Path) -> String {
    word(path.display().to_string())
}

/// Quoted, if a shell would take it for something else than one word.
fn word(text: String) -> String {
    // An error says that no shell can be told, and a path without NUL has none.
    shlex::try_quote(&text).map(Cow::into_owned).unwrap_or(text)
}

/// Says something on stderr that is not the result.
pub(crate) fn note(text: &str) {
    // Nobody is left to tell when stderr cannot be written.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Says on stderr why the command failed.
pub(crate) fn error(error: &anyhow::Error) {
    note(&format!("error: {}", explanation(error)));
}

/// The error and its causes, without those whose words an earlier one has taken over.
fn explanation(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_can_be_typed() {
        assert_eq!(typed(Path::new("runs/one-2")), "runs/one-2");
        assert_eq!(typed(Path::new("my photos")), "'my photos'");
        assert_eq!(typed(Path::new("it's")), "\"it's\"");
    }

    #[test]
    fn a_cause_is_said_once() {
        let cause = || std::io::Error::new(ErrorKind::NotFound, "no such file");
        let own = anyhow::Error::new(cause()).context("cannot read a.png");
        assert_eq!(explanation(&own), "cannot read a.png: no such file");
        let taken_over =
            anyhow::Error::new(cause()).context("cannot open b: no such file; name it");
        assert_eq!(explanation(&taken_over), "cannot open b: no such file; name it");
    }
}
