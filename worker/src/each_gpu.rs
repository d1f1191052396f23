//! A worker process for each of several GPUs, started and watched by this one.

use std::io::Write;
use std::process::{Command, ExitCode};

use anyhow::Context;
use hw2_common::child::{Child, EXIT_EARLY, Ending, Said};
use nix::sys::signal::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::unbounded_channel;

use crate::args::WorkerArgs;

/// Starts a worker for each of `workers` and waits for all of them; `subcommand` is what makes this
/// program a worker. SIGTERM and SIGINT are passed on. Where one fails the others go on, and the
/// exit code is the first failure's.
///
/// # Errors
/// A process cannot be started. All others lose their lifeline and end by themselves.
pub(crate) fn run(workers: &[WorkerArgs], subcommand: &[&str]) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let endings = runtime.block_on(watch(workers, subcommand))?;
    Ok(ExitCode::from(exit_code(&endings)))
}

async fn watch(workers: &[WorkerArgs], subcommand: &[&str]) -> anyhow::Result<Vec<Ending>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let label = |worker: &WorkerArgs| Ok(worker.device.choice(0)?.kind.to_string());
    let labels: Vec<String> = workers.iter().map(label).collect::<anyhow::Result<_>>()?;
    let (sender, mut messages) = unbounded_channel();
    let mut children = Vec::new();
    for (place, worker) in workers.iter().enumerate() {
        let mut command = Command::new(&program);
        command.args(subcommand).args(worker.flags());
        let sender = sender.clone();
        // The receiver is gone only when this process is about to end.
        let report = move |said| drop(sender.send((place, said)));
        let child = Child::start(command, report);
        let named = || format!("cannot start the worker on {}", labels[place]);
        children.push(Some(child.with_context(named)?));
    }
    let mut endings = vec![None; workers.len()];
    while endings.contains(&None) {
        tokio::select! {
            message = messages.recv() => match message.expect("this process holds a sender too") {
                (place, Said::Line(line)) => say(&labels[place], &line),
                (place, Said::Ended(ending, _)) => {
                    // Its id may become another's.
                    children[place] = None;
                    endings[place] = Some(ending);
                    tell(&labels[place], ending, endings.contains(&None));
                }
            },
            _ = terminate.recv() => stop(&children),
            _ = interrupt.recv() => stop(&children),
        }
    }
    Ok(endings.into_iter().flatten().collect())
}

/// A line of a worker's log, on our own stderr.
fn say(label: &str, line: &str) {
    // Nobody is left to tell when stderr cannot be written.
    let _ = writeln!(std::io::stderr().lock(), "{label} | {line}");
}

fn tell(label: &str, ending: Ending, others_go_on: bool) {
    match (ending.is_in_order(), others_go_on) {
        (true, _) => tracing::info!("the worker on {label} {ending}"),
        (false, true) => tracing::error!("the worker on {label} {ending}: going on without it"),
        (false, false) => tracing::error!("the worker on {label} {ending}"),
    }
}

fn stop(children: &[Option<Child>]) {
    tracing::info!("asked to stop: telling the workers");
    children.iter().flatten().for_each(|child| child.signal(Signal::SIGTERM));
}

/// What says the most: the first failure, else that one has left early, else that the run is over.
fn exit_code(endings: &[Ending]) -> u8 {
    let failure = endings.iter().find(|ending| !ending.is_in_order());
    match failure {
        // Codes of processes are bytes.
        Some(Ending::Exited(code)) => *code as u8,
        Some(Ending::Killed(_)) => 1,
        None if endings.contains(&Ending::Exited(EXIT_EARLY.into())) => EXIT_EARLY,
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_says_the_most() {
        let exited = Ending::Exited;
        assert_eq!(exit_code(&[exited(0), exited(0)]), 0);
        assert_eq!(exit_code(&[exited(0), exited(75)]), 75);
        assert_eq!(exit_code(&[exited(75), exited(2), exited(1)]), 2);
        assert_eq!(exit_code(&[exited(0), Ending::Killed(9)]), 1);
    }
}
