//! `curve.jsonl` in the run's folder: one line of JSON per committed step and per evaluation.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use hw2_common::ids::GlobalStep;
use serde::{Deserialize, Serialize};

/// The file's name in the run's folder.
pub const FILE_NAME: &str = "curve.jsonl";

/// One line.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Line {
    /// A step was committed.
    Step {
        /// Committed steps, this one included.
        step: GlobalStep,
        /// Mean over the replicas, L2 included; none when the step was skipped.
        loss: Option<f64>,
        /// Part of the training images that were right, on augmented images.
        train_top1: Option<f64>,
        /// Of the update.
        learning_rate: f64,
        /// Over the last steps, the waiting for evaluations left out.
        images_per_second: f64,
        /// Whether the step made no update because a contribution was not finite.
        skipped: bool,
    },
    /// An evaluation is complete.
    Evaluation {
        /// Whose EMA weights were evaluated.
        step: GlobalStep,
        /// Images.
        samples: u32,
        /// Images whose label has the largest logit.
        top1: u32,
        /// Images whose label is among the five largest logits.
        top5: u32,
        /// Mean cross-entropy, L2 not included.
        loss: f64,
        /// Of the next step.
        learning_rate: f64,
        /// Evaluations in a row without a gain.
        stale_evaluations: u32,
    },
}

impl Line {
    /// Committed steps at the time of the line.
    pub fn step(&self) -> GlobalStep {
        match self {
            Self::Step { step, .. } | Self::Evaluation { step, .. } => *step,
        }
    }

    fn to_json(self) -> String {
        let mut text = serde_json::to_string(&self).expect("plain data always becomes JSON");
        text.push('\n');
        text
    }
}

/// Reads the lines of a run's folder; none when there is no curve yet. A last line that was being
/// written when the server was killed is left out.
///
/// # Errors
/// The file cannot be read, or holds something else.
pub fn read(run_dir: &Path) -> io::Result<Vec<Line>> {
    let text = match fs::read_to_string(run_dir.join(FILE_NAME)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let parse = |(number, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|error| {
            let text = format!("line {}: {error}; repair or remove {FILE_NAME}", number + 1);
            io::Error::new(io::ErrorKind::InvalidData, text)
        })
    };
    whole.lines().enumerate().map(parse).collect()
}

/// The curve of a running server.
pub(crate) struct Curve {
    file: File,
    /// Bytes of the whole lines.
    len: u64,
}

impl Curve {
    /// Opens the curve of a run that goes on from `step`: what lies after it is cut off, for it
    /// will be written again. Also returns the last step that the file knew of.
    ///
    /// # Errors
    /// The file cannot be read or written, or holds something else.
    pub(crate) fn resume(
        run_dir: &Path,
        step: GlobalStep,
        evaluated: bool,
    ) -> io::Result<(Self, GlobalStep)> {
        let lines = read(run_dir)?;
        let last = lines.iter().map(Line::step).max().unwrap_or_default();
        let keep = |line: &&Line| match line {
            Line::Evaluation { step: at, .. } if !evaluated => *at < step,
            line => line.step() <= step,
        };
        let kept: String = lines.iter().filter(keep).map(|line| line.to_json()).collect();
        let path = run_dir.join(FILE_NAME);
        let aside = run_dir.join(".curve.partial");
        fs::write(&aside, &kept)?;
        fs::rename(&aside, &path)?;
        let file = OpenOptions::new().append(true).open(&path)?;
        Ok((Self { file, len: kept.len() as u64 }, last))
    }

    /// Adds a line.
    ///
    /// # Errors
    /// The disk is full, say; then the line is missing, and the next one begins where it would
    /// have.
    pub(crate) fn add(&mut self, line: &Line) -> io::Result<()> {
        let text = line.to_json();
        if self.file.metadata()?.len() > self.len {
            self.file.set_len(self.len)?;
        }
        self.file.write_all(text.as_bytes())?;
        self.len += text.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(step: u64) -> Line {
        Line::Step {
            step: GlobalStep(step),
            loss: Some(0.1 + step as f64),
            train_top1: None,
            learning_rate: 1e-3,
            images_per_second: 45.5,
            skipped: false,
        }
    }

    fn evaluation(step: u64) -> Line {
        Line::Evaluation {
            step: GlobalStep(step),
            samples: 10,
            top1: 3,
            top5: 7,
            loss: 1.0 / 3.0,
            learning_rate: 1e-3,
            stale_evaluations: 1,
        }
    }

    #[test]
    fn a_curve_is_cut_back_to_the_step_from_which_the_run_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let (mut curve, last) = Curve::resume(dir.path(), GlobalStep(0), false).unwrap();
        assert_eq!(last, GlobalStep(0));
        let lines = [evaluation(0), step(1), step(2), evaluation(2), step(3)];
        lines.iter().for_each(|line| curve.add(line).unwrap());
        assert_eq!(read(dir.path()).unwrap(), lines);

        let (mut curve, last) = Curve::resume(dir.path(), GlobalStep(2), true).unwrap();
        assert_eq!(last, GlobalStep(3));
        assert_eq!(read(dir.path()).unwrap(), lines[..4]);
        curve.add(&step(3)).unwrap();
        assert_eq!(read(dir.path()).unwrap(), lines);

        let (_, last) = Curve::resume(dir.path(), GlobalStep(2), false).unwrap();
        assert_eq!(last, GlobalStep(3));
        assert_eq!(read(dir.path()).unwrap(), lines[..3]);
    }

    #[test]
    fn a_line_that_was_cut_off_by_a_full_disk_does_not_spoil_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let (mut curve, _) = Curve::resume(dir.path(), GlobalStep(0), false).unwrap();
        curve.add(&step(1)).unwrap();
        curve.file.write_all(&step(2).to_json().as_bytes()[..20]).unwrap();
        curve.add(&step(3)).unwrap();
        assert_eq!(read(dir.path()).unwrap(), [step(1), step(3)]);
    }

    #[test]
    fn a_torn_last_line_is_dropped_and_a_foreign_file_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        let torn = step(1).to_json() + &step(2).to_json()[..20];
        fs::write(&path, torn).unwrap();
        assert_eq!(read(dir.path()).unwrap(), [step(1)]);
        fs::write(&path, "step,loss\n1,2\n").unwrap();
        let error = Curve::resume(dir.path(), GlobalStep(0), true).err().unwrap();
        assert!(error.to_string().contains("line 1"), "{error}");
    }
}
