//! Shows a running cluster: its progress, its decisions, and what its processes have to say.

use std::time::{Duration, Instant};

use hw2_proto::v1::StatusReply;

use crate::cluster::Audience;
use crate::output::{Display, Snapshot};

/// Where a running cluster is seen.
pub(crate) struct Stage {
    display: Display,
    verbose: bool,
    /// From when on the present server's pace is measured.
    start: Option<Start>,
}

/// The first answer of one life of the server.
#[derive(Clone, Copy)]
struct Start {
    term: u64,
    step: u64,
    at: Instant,
}

impl Stage {
    /// An empty one. `verbose` shows the whole log of the children.
    pub(crate) fn new(verbose: bool) -> Self {
        Self { display: Display::new(), verbose, start: None }
    }

    /// Takes the progress away.
    pub(crate) fn clear(&self) {
        self.display.clear();
    }
}

impl Audience for Stage {
    fn child_line(&mut self, child: &str, line: &str) {
        if self.verbose || !is_chatter(line) {
            self.display.log(&format!("{child} | {line}"));
        }
    }

    fn decision(&mut self, reason: &str) {
        self.display.log(reason);
    }

    fn status(&mut self, status: &StatusReply) {
        let known = self.start.filter(|start| start.term == status.term);
        let here = || Start { term: status.term, step: status.global_step, at: Instant::now() };
        let start = *self.start.insert(known.unwrap_or_else(here));
        self.display.show(&snapshot(status, start.step, start.at.elapsed()));
    }
}

/// Whether a line of a child's log tells of nothing out of the ordinary: `TIME LEVEL MESSAGE`.
fn is_chatter(line: &str) -> bool {
    let mut words = line.split_whitespace();
    let is_time = |word: &str| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('T');
    words.next().is_some_and(is_time) && matches!(words.next(), Some("INFO" | "DEBUG" | "TRACE"))
}

/// What `status` shows, given that `first_step` was the step `elapsed` ago.
fn snapshot(status: &StatusReply, first_step: u64, elapsed: Duration) -> Snapshot {
    let done = status.global_step.saturating_sub(first_step);
    let left = status.max_steps.saturating_sub(status.global_step);
    let time_left = (done > 0).then(|| elapsed.mul_f64(left as f64 / done as f64));
    let evaluation = status.last_evaluation.as_ref();
    Snapshot {
        step: status.global_step,
        max_steps: status.max_steps,
        phase: (status.phase != "training").then(|| status.phase.clone()),
        loss: status.loss,
        train_top1: status.train_top1,
        val_top1: evaluation
            .map(|found| (found.step, f64::from(found.top1) / f64::from(found.samples.max(1)))),
        images_per_second: status.images_per_second,
        learning_rate: status.learning_rate,
        time_left,
    }
}

#[cfg(test)]
mod tests {
    use hw2_proto::v1::EvaluationStatus;

    use super::*;

    fn status(step: u64) -> StatusReply {
        StatusReply {
            global_step: step,
            max_steps: 900,
            phase: "training".into(),
            loss: (step > 300).then_some(0.5),
            train_top1: (step > 300).then_some(0.75),
            learning_rate: 1e-3,
            images_per_second: 400.0,
            ..StatusReply::default()
        }
    }

    #[test]
    fn nothing_is_said_of_a_step_before_the_first() {
        let snapshot = snapshot(&status(300), 300, Duration::from_secs(9));
        assert_eq!((snapshot.loss, snapshot.train_top1, snapshot.time_left), (None, None, None));
        assert_eq!((snapshot.step, snapshot.val_top1, snapshot.phase), (300, None, None));
    }

    #[test]
    fn the_time_left_follows_from_the_steps_of_this_run() {
        let evaluation =
            EvaluationStatus { step: 300, samples: 500, top1: 400, top5: 490, loss: 0.6 };
        let status = StatusReply {
            last_evaluation: Some(evaluation),
            phase: "evaluating".into(),
            ..status(400)
        };
        let snapshot = snapshot(&status, 300, Duration::from_secs(20));
        assert_eq!(snapshot.time_left, Some(Duration::from_secs(100)));
        assert_eq!(snapshot.val_top1, Some((300, 0.8)));
        assert_eq!(snapshot.phase.as_deref(), Some("evaluating"));
        assert_eq!((snapshot.loss, snapshot.train_top1), (Some(0.5), Some(0.75)));
    }

    #[test]
    fn only_ordinary_log_lines_are_chatter() {
        let time = "2026-11-24T04:58:40.622556Z";
        assert!(is_chatter(&format!("{time}  INFO listening on unix:/tmp/ps.sock")));
        assert!(is_chatter(&format!("{time} DEBUG INFO")));
        for line in [&format!("{time}  WARN worker 3 is lost"), "error: no INFO", "2 INFO", ""] {
            assert!(!is_chatter(line), "{line}");
        }
    }
}
