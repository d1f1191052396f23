//! `hw2 predict`: what a trained network sees in image files.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use hw2_worker::classifier::Classifier;
use serde::Serialize;

use crate::checkpoint_args::CheckpointArgs;
use crate::compute_args::ComputeArgs;
use crate::output::{self, Report};

/// Names the most probable classes of image files
///
/// A file that cannot be read is named, the others are predicted all the same, and the exit code is
/// then 1.
#[derive(Args, Debug)]
pub(crate) struct PredictArgs {
    /// JPEG or PNG files
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,

    #[command(flatten)]
    checkpoint: CheckpointArgs,

    /// Classes to name
    #[arg(long, value_name = "K", default_value_t = 5)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    top_k: u32,

    #[command(flatten)]
    compute: ComputeArgs,

    /// Print one line of JSON for each file
    #[arg(long)]
    json: bool,
}

/// Predicts each file.
pub(crate) fn run(args: &PredictArgs) -> anyhow::Result<()> {
    let checkpoint = args.checkpoint.read()?;
    let mut classifier = args.compute.classifier(&checkpoint)?;
    output::note(&format!("weights of {}", checkpoint.state.progress.global_step));
    let mut failures = 0;
    for file in &args.files {
        match predict(&mut classifier, file, args.top_k as usize) {
            Ok(prediction) => output::report(&prediction, args.json)?,
            Err(error) => {
                output::error(&error);
                failures += 1;
            }
        }
    }
    if failures > 0 {
        bail!("{failures} of {} files could not be predicted", args.files.len());
    }
    Ok(())
}

fn predict(classifier: &mut Classifier, file: &Path, k: usize) -> anyhow::Result<Prediction> {
    let named = || file.display().to_string();
    if file.is_dir() {
        bail!("{0} is a folder: name the files in it, as in {0}/*.jpg", named());
    }
    let bytes = std::fs::read(file).with_context(named)?;
    let ranked = classifier.predict(&bytes, k).with_context(named)?;
    let class = |(class, probability): (&str, f64)| Class { class: class.into(), probability };
    Ok(Prediction { file: named(), classes: ranked.into_iter().map(class).collect() })
}

#[derive(Debug, Serialize)]
struct Prediction {
    file: String,
    classes: Vec<Class>,
}

#[derive(Debug, Serialize)]
struct Class {
    class: String,
    probability: f64,
}

impl Report for Prediction {
    fn text(&self) -> String {
        let classes = self.classes.iter();
        let lines =
            classes.map(|Class { class, probability }| format!("  {probability:.4}  {class}"));
        std::iter::once(self.file.clone()).chain(lines).collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_come_below_their_file() {
        let class = |class: &str, probability| Class { class: class.into(), probability };
        let classes = vec![class("ankle-boot", 0.953_12), class("sneaker", 0.04)];
        let prediction = Prediction { file: "photos/1.jpg".into(), classes };
        assert_eq!(prediction.text(), "photos/1.jpg\n  0.9531  ankle-boot\n  0.0400  sneaker");
    }
}
