//! How far a run is: a bar with the log above it on a terminal, a line now and then elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{duration, note, rate, significant};

/// Time between two lines when stderr is no terminal and no evaluation ends.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// What the display shows.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Snapshot {
    /// Committed steps.
    pub(crate) step: u64,
    /// Steps of the whole run.
    pub(crate) max_steps: u64,
    /// What the server is doing, when that is not training.
    pub(crate) phase: Option<String>,
    /// Of the last step; none before the first.
    pub(crate) loss: Option<f64>,
    /// Part of the last step's images that were right; none before the first step.
    pub(crate) train_top1: Option<f64>,
    /// The newest evaluation: its step and top-1.
    pub(crate) val_top1: Option<(u64, f64)>,
    /// Of the last steps.
    pub(crate) images_per_second: f64,
    /// Adam's.
    pub(crate) learning_rate: f64,
    /// Until `max_steps`; none until it can be guessed.
    pub(crate) time_left: Option<Duration>,
}

/// Shows snapshots and log lines on stderr.
pub(crate) enum Display {
    /// On a terminal; remembers the newest evaluation.
    Bar(ProgressBar, Option<(u64, f64)>),
    /// In a file or pipe.
    Lines(Lines),
}

/// Counts items on a terminal, and says nothing elsewhere.
pub(crate) struct Counter(ProgressBar);

/// Remembers what was said, so that only news are.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    said: Option<(Instant, Snapshot)>,
}

impl Display {
    /// A bar where stderr is a terminal.
    pub(crate) fn new() -> Self {
        if !std::io::stderr().is_terminal() {
            return Self::Lines(Lines::default());
        }
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{wide_bar} {pos}/{len}\n{wide_msg}");
        bar.set_style(style.expect("the template above is well formed"));
        Self::Bar(bar, None)
    }

    /// Shows the newest snapshot.
    pub(crate) fn show(&mut self, snapshot: &Snapshot) {
        match self {
            Self::Bar(bar, evaluated) => {
                if *evaluated != snapshot.val_top1 {
                    *evaluated = snapshot.val_top1;
                    bar.suspend(|| note(&snapshot.line()));
                }
                bar.set_length(snapshot.max_steps);
                bar.set_position(snapshot.step);
                bar.set_message(snapshot.figures());
            }
            Self::Lines(lines) => {
                if lines.is_news(Instant::now(), snapshot) {
                    note(&snapshot.line());
                }
            }
        }
    }

    /// Shows a line of the log: above the bar, or in its turn.
    pub(crate) fn log(&self, line: &str) {
        match self {
            Self::Bar(bar, _) => bar.suspend(|| note(line)),
            Self::Lines(_) => note(line),
        }
    }

    /// Takes the bar away.
    pub(crate) fn clear(&self) {
        if let Self::Bar(bar, _) = self {
            bar.finish_and_clear();
        }
    }
}

impl Counter {
    /// Nothing of `total` items is done yet.
    pub(crate) fn new(items: &str, total: u64) -> Self {
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} {msg}");
        bar.set_style(style.expect("the template above is well formed"));
        bar.set_message(items.to_owned());
        Self(bar)
    }

    /// This many are done.
    pub(crate) fn show(&self, done: u64) {
        self.0.set_position(done);
    }

    /// Takes the count away.
    pub(crate) fn clear(&self) {
        self.0.finish_and_clear();
    }
}

impl Lines {
    /// Whether to print `snapshot` at `now`: the first one, each evaluation, and progress now and
    /// then.
    fn is_news(&mut self, now: Instant, snapshot: &Snapshot) -> bool {
        let news = match &self.said {
            None => true,
            Some((at, said)) => {
                said.val_top1 != snapshot.val_top1
                    || (said != snapshot && now.duration_since(*at) >= LINE_INTERVAL)
            }
        };
        if news {
            self.said = Some((now, snapshot.clone()));
        }
        news
    }
}

impl Snapshot {
    fn line(&self) -> String {
        format!("step {}/{}  {}", self.step, self.max_steps, self.figures())
    }

    fn figures(&self) -> String {
        let part = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.3}"));
        let val = self.val_top1.map_or("-".into(), |(step, top1)| format!("{top1:.3} at {step}"));
        let mut parts = vec![
            format!("loss {}", part(self.loss)),
            format!("train acc {}", part(self.train_top1)),
            format!("val acc {val}"),
            format!("{} images/s", rate(self.images_per_second)),
        ];
        parts.extend(self.time_left.map(|left| format!("{} left", duration(left))));
        // Last, for a narrow terminal cuts the line.
        parts.push(format!("lr {}", significant(self.learning_rate)));
        parts.extend(self.phase.clone());
        parts.join("  ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(step: u64) -> Snapshot {
        Snapshot { step, max_steps: 900, learning_rate: 1e-3, ..Snapshot::default() }
    }

    #[test]
    fn figures_say_what_is_not_known_yet() {
        assert_eq!(
            snapshot(0).figures(),
            "loss -  train acc -  val acc -  0.00 images/s  lr 0.001"
        );
        let later = Snapshot {
            loss: Some(0.51234),
            train_top1: Some(0.8125),
            val_top1: Some((300, 0.85)),
            images_per_second: 413.2,
            time_left: Some(Duration::from_secs(75)),
            phase: Some("evaluating".into()),
            ..snapshot(300)
        };
        assert_eq!(
            later.figures(),
            "loss 0.512  train acc 0.812  val acc 0.850 at 300  413 images/s  1:15 left  \
             lr 0.001  evaluating"
        );
    }

    #[test]
    fn lines_are_printed_for_evaluations_and_now_and_then() {
        let start = Instant::now();
        let mut lines = Lines::default();
        assert!(lines.is_news(start, &snapshot(0)), "the first");
        assert!(!lines.is_news(start + LINE_INTERVAL / 2, &snapshot(1)), "too soon");
        assert!(lines.is_news(start + LINE_INTERVAL, &snapshot(2)), "now and then");
        let evaluated = Snapshot { val_top1: Some((2, 0.5)), ..snapshot(2) };
        assert!(lines.is_news(start + LINE_INTERVAL, &evaluated), "an evaluation, at once");
        assert!(!lines.is_news(start + 9 * LINE_INTERVAL, &evaluated), "nothing has changed");
    }
}
