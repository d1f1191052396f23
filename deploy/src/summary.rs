//! What a run came to: its evaluations, its best, and where its checkpoints lie.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use hw2_common::checkpoint::{file_name, list};
use hw2_common::ids::GlobalStep;
use hw2_server::curve::{self, Line};
use serde::Serialize;

use crate::output::{Column, Report, Table, duration, fraction, significant};

/// A run's evaluations and checkpoints.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    /// In order of their steps.
    evaluations: Vec<Evaluation>,
    /// The evaluation with the highest top-1, the first of equals.
    best: Option<Evaluation>,
    /// Where the run lies.
    run_dir: PathBuf,
    newest_checkpoint: Option<PathBuf>,
    best_checkpoint: Option<PathBuf>,
    /// Whether the user ended it before its time.
    interrupted: bool,
    /// Wall-clock time of this part of the run.
    seconds: f64,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Evaluation {
    step: u64,
    samples: u32,
    top1: u32,
    top5: u32,
    loss: f64,
    learning_rate: f64,
}

impl Summary {
    /// Reads the folder of a run that has ended.
    ///
    /// # Errors
    /// The curve or the folder cannot be read.
    pub(crate) fn read(run_dir: &Path, interrupted: bool, took: Duration) -> anyhow::Result<Self> {
        let lines = curve::read(run_dir)
            .with_context(|| format!("cannot read the curve in {}", run_dir.display()))?;
        let evaluations: Vec<Evaluation> = lines.iter().filter_map(Evaluation::of).collect();
        let best = evaluations.iter().copied().reduce(Evaluation::better);
        let checkpoints = list(run_dir)?;
        let best_file = best.map(|best| run_dir.join(file_name(GlobalStep(best.step))));
        Ok(Self {
            evaluations,
            best,
            run_dir: run_dir.to_owned(),
            newest_checkpoint: checkpoints.last().map(|(_, path)| path.clone()),
            best_checkpoint: best_file.filter(|path| path.exists()),
            interrupted,
            seconds: took.as_secs_f64(),
        })
    }

    fn table(&self) -> Table {
        let columns = ["step", "top-1", "top-5", "loss", "lr"].map(Column::Right);
        let mut table = Table::new(columns);
        for evaluation in &self.evaluations {
            let Evaluation { step, samples, top1, top5, loss, learning_rate } = *evaluation;
            table.row([
                step.to_string(),
                fraction(top1, samples),
                fraction(top5, samples),
                format!("{loss:.3}"),
                significant(learning_rate),
            ]);
        }
        table
    }
}

impl Evaluation {
    fn of(line: &Line) -> Option<Self> {
        match *line {
            Line::Evaluation { step, samples, top1, top5, loss, learning_rate, .. } => {
                Some(Self { step: step.0, samples, top1, top5, loss, learning_rate })
            }
            Line::Step { .. } => None,
        }
    }

    fn better(self, later: Self) -> Self {
        if later.top1 > self.top1 { later } else { self }
    }
}

impl Report for Summary {
    fn text(&self) -> String {
        let mut lines = vec![self.table().to_string(), String::new()];
        if let Some(Evaluation { step, samples, top1, .. }) = self.best {
            let rate = fraction(top1, samples);
            lines.push(format!("best: top-1 {rate} ({top1} of {samples}) at step {step}"));
        }
        let took = duration(Duration::from_secs_f64(self.seconds));
        lines.push(format!("{} after {took}", if self.interrupted { "stopped" } else { "done" }));
        let newest = self.newest_checkpoint.as_ref();
        lines.extend(newest.map(|path| format!("newest checkpoint: {}", path.display())));
        let best = self.best_checkpoint.as_ref().filter(|path| Some(*path) != newest);
        lines.extend(best.map(|path| format!("best checkpoint:   {}", path.display())));
        if self.interrupted {
            let out = self.run_dir.display();
            lines.push(format!("to go on: hw2 train --resume --out {out}"));
        }
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(step: u64, top1: u32) -> String {
        let line = Line::Evaluation {
            step: GlobalStep(step),
            samples: 500,
            top1,
            top5: 490,
            loss: 0.61,
            learning_rate: 1e-3,
            stale_evaluations: 0,
        };
        serde_json::to_string(&line).unwrap() + "\n"
    }

    #[test]
    fn the_summary_has_every_evaluation_and_names_the_checkpoints() {
        let dir = tempfile::tempdir().unwrap();
        let curve = [line(0, 50), line(100, 430), line(200, 430)].concat();
        std::fs::write(dir.path().join("curve.jsonl"), curve).unwrap();
        for step in [100, 200] {
            std::fs::write(dir.path().join(file_name(GlobalStep(step))), "").unwrap();
        }
        let summary = Summary::read(dir.path(), true, Duration::from_secs(61)).unwrap();
        let run = dir.path().display();
        assert_eq!(
            summary.text(),
            format!(
                "step  top-1  top-5   loss     lr\n   \
                    0  0.100  0.980  0.610  0.001\n \
                  100  0.860  0.980  0.610  0.001\n \
                  200  0.860  0.980  0.610  0.001\n\
                 \n\
                 best: top-1 0.860 (430 of 500) at step 100\n\
                 stopped after 1:01\n\
                 newest checkpoint: {run}/checkpoint-00000200.safetensors\n\
                 best checkpoint:   {run}/checkpoint-00000100.safetensors\n\
                 to go on: hw2 train --resume --out {run}"
            )
        );
    }

    #[test]
    fn a_run_that_was_stopped_before_its_first_evaluation_has_no_best() {
        let dir = tempfile::tempdir().unwrap();
        let summary = Summary::read(dir.path(), true, Duration::ZERO).unwrap();
        assert!(summary.best.is_none() && summary.newest_checkpoint.is_none());
        assert!(!summary.text().contains("best"));
    }
}
