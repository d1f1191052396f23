//! What a run came to: its evaluations, its best, and where its checkpoints lie.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use hw2_common::checkpoint::{Which, file_name, find, list};
use hw2_common::child::EXIT_EARLY;
use hw2_server::curve::{self, Line};
use hw2_server::is_over;
use serde::Serialize;

use crate::output::{self, Column, Report, Table, duration, fraction, significant};

/// A run's evaluations and checkpoints.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    /// In order of their steps.
    evaluations: Vec<Evaluation>,
    /// That of the best checkpoint, which `hw2 eval` and `hw2 predict` use.
    best: Option<Evaluation>,
    /// Where the run lies.
    run_dir: PathBuf,
    newest_checkpoint: Option<PathBuf>,
    best_checkpoint: Option<PathBuf>,
    /// Whether it was stopped before it was over.
    interrupted: bool,
    /// That it had.
    #[serde(skip)]
    workers: usize,
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
    /// Reads the folder of a run that has ended in good order, with so many workers.
    ///
    /// # Errors
    /// The curve, the folder or its checkpoints cannot be read.
    pub(crate) fn read(run_dir: &Path, workers: usize, took: Duration) -> anyhow::Result<Self> {
        let lines = curve::read(run_dir)
            .with_context(|| format!("cannot read the curve in {}", run_dir.display()))?;
        let evaluations: Vec<Evaluation> = lines.iter().filter_map(Evaluation::of).collect();
        let checkpoints = list(run_dir)?;
        let (best_step, is_over) = match checkpoints.is_empty() {
            true => (None, false),
            false => {
                let best = find(run_dir, Which::Best)?.state.progress.global_step;
                let newest = find(run_dir, Which::Newest)?;
                (Some(best), is_over(&newest.job, &newest.state.progress))
            }
        };
        let is_best = |it: &&Evaluation| best_step.is_some_and(|step| it.step == step.0);
        let best = evaluations.iter().find(is_best).copied();
        Ok(Self {
            evaluations,
            best,
            run_dir: run_dir.to_owned(),
            newest_checkpoint: checkpoints.last().map(|(_, path)| path.clone()),
            best_checkpoint: best_step.map(|step| run_dir.join(file_name(step))),
            interrupted: !is_over,
            workers,
            seconds: took.as_secs_f64(),
        })
    }

    /// What the command that ran it exits with.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(if self.interrupted { EXIT_EARLY } else { 0 })
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
}

impl Report for Summary {
    fn text(&self) -> String {
        if self.newest_checkpoint.is_none() {
            return "stopped before it began: nothing is saved, and nothing to go on with".into();
        }
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
        let (program, out) = (output::program(), output::typed(&self.run_dir));
        if self.interrupted {
            let workers = self.workers;
            lines.push(format!(
                "to go on:  {program} train --resume --out {out} --workers {workers}"
            ));
        }
        lines.push(format!("accuracy:  {program} eval --checkpoint-dir {out}"));
        lines.push(format!("your photos:  {program} predict --checkpoint-dir {out} PHOTO..."));
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use hw2_common::checkpoint::Checkpoint;
    use hw2_common::config::Config;
    use hw2_common::ids::GlobalStep;
    use hw2_common::job::{Card, Job};
    use hw2_common::model::{Block, ModelSpec};
    use hw2_common::state::{self, State};

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

    /// Writes the checkpoint of `step`, which knows what the best evaluation was.
    fn checkpoint(dir: &Path, step: u64, best: (u64, u32)) {
        let blocks = vec![Block::SoftmaxLinear { name: "softmax".into() }];
        let config = Config { model: ModelSpec { image_size: 8, blocks }, ..Config::default() };
        let classes = vec!["a".into(), "b".into()];
        let dataset =
            Card { classes, train: 500, val: 500, fingerprint: hw2_common::hex(&[0; 32]) };
        let job = Job { config, dataset };
        let mut state = State::initial(&job.config, &job.layout().unwrap());
        let (at, top1) = (GlobalStep(best.0), best.1);
        let best = state::Evaluation { step: at, samples: 500, top1, top5: 490, loss: 0.61 };
        state.progress.global_step = GlobalStep(step);
        state.progress.best_evaluation = Some(best);
        state.progress.last_evaluation = Some(best);
        Checkpoint::new(job, None, state).write(dir).unwrap();
    }

    #[test]
    fn the_summary_has_every_evaluation_and_names_the_checkpoints() {
        let dir = tempfile::tempdir().unwrap();
        let curve = [line(0, 50), line(100, 430), line(200, 430)].concat();
        std::fs::write(dir.path().join("curve.jsonl"), curve).unwrap();
        checkpoint(dir.path(), 100, (100, 430));
        checkpoint(dir.path(), 200, (100, 430));
        let summary = Summary::read(dir.path(), 2, Duration::from_secs(61)).unwrap();
        let (program, run) = (output::program(), dir.path().display());
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
                 to go on:  {program} train --resume --out {run} --workers 2\n\
                 accuracy:  {program} eval --checkpoint-dir {run}\n\
                 your photos:  {program} predict --checkpoint-dir {run} PHOTO..."
            )
        );
    }

    #[test]
    fn random_weights_are_never_the_best() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("curve.jsonl"), line(0, 50)).unwrap();
        checkpoint(dir.path(), 0, (0, 50));
        checkpoint(dir.path(), 72, (0, 50));
        let summary = Summary::read(dir.path(), 1, Duration::ZERO).unwrap();
        assert!(summary.best.is_none(), "step 72 was not evaluated");
        assert_eq!(summary.best_checkpoint, summary.newest_checkpoint);
    }

    #[test]
    fn a_run_is_over_when_its_newest_checkpoint_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let max_steps = Config::default().max_steps;
        for (step, interrupted) in [(max_steps - 1, true), (max_steps, false)] {
            checkpoint(dir.path(), step, (step, 430));
            let summary = Summary::read(dir.path(), 1, Duration::ZERO).unwrap();
            assert_eq!(summary.interrupted, interrupted);
            assert_eq!(summary.text().contains("to go on:"), interrupted);
        }
    }

    #[test]
    fn a_run_that_was_stopped_before_its_first_evaluation_has_no_best() {
        let dir = tempfile::tempdir().unwrap();
        let summary = Summary::read(dir.path(), 1, Duration::ZERO).unwrap();
        assert!(summary.best.is_none() && summary.newest_checkpoint.is_none());
        assert!(summary.interrupted && summary.text().starts_with("stopped before it began"));
    }
}
