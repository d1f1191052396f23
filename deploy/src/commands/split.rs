//! `hw2 split`: class folders into a training and a validation part.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use hw2_common::dataset::{Ignored, Ratio, SplitOptions, SplitReport, Transfer, split};
use serde::Serialize;

use crate::output::{self, Column, Report, Table, count};

/// Names of what was left out that are printed.
const NAMES_SHOWN: usize = 5;

/// Splits a folder of class folders into a dataset with train/ and val/
///
/// Each class is split by the ratio, at random but by the seed. The images are copied or linked,
/// never moved or changed, and DEST appears whole or not at all.
#[derive(Args, Debug)]
pub(crate) struct SplitArgs {
    /// Folder of class folders of JPEG or PNG images
    #[arg(value_name = "SOURCE")]
    source: PathBuf,

    /// The dataset to make: a new or empty folder
    #[arg(value_name = "DEST")]
    dest: PathBuf,

    /// Parts of each class for training and for validation
    #[arg(long, value_name = "TRAIN:VAL", default_value = "4:1")]
    ratio: Ratio,

    /// Of the random choice
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// Link the images instead of copying them
    #[arg(long, value_name = "KIND", num_args = 0..=1, default_missing_value = "symbolic")]
    link: Option<Link>,

    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Link {
    /// To the image's absolute path
    Symbolic,
    /// Another name of the same file, on the same file system
    Hard,
}

/// Splits, and prints what there is in each class.
pub(crate) fn run(args: &SplitArgs) -> anyhow::Result<()> {
    let transfer = match args.link {
        None => Transfer::Copy,
        Some(Link::Symbolic) => Transfer::Symlink,
        Some(Link::Hard) => Transfer::Hardlink,
    };
    let options = SplitOptions { ratio: args.ratio, seed: args.seed, transfer };
    let report = split(&args.source, &args.dest, &options)?;
    output::report(&Dataset { dest: args.dest.clone(), report }, args.json)
}

#[derive(Debug, Serialize)]
struct Dataset {
    dest: PathBuf,
    #[serde(flatten)]
    report: SplitReport,
}

impl Report for Dataset {
    fn text(&self) -> String {
        let mut table =
            Table::new([Column::Left("class"), Column::Right("train"), Column::Right("val")]);
        for class in &self.report.classes {
            table.row([class.class.clone(), count(class.train.into()), count(class.val.into())]);
        }
        let card = &self.report.card;
        table.row([
            format!("{} classes", card.classes.len()),
            count(card.train.into()),
            count(card.val.into()),
        ]);
        let mut lines = vec![table.to_string()];
        let Ignored { folders, files } = &self.report.ignored;
        lines.extend(left_out("folders inside class folders, with all that is in them", folders));
        lines.extend(left_out("files that are no JPEG or PNG images of a class", files));
        lines.push(format!("made {}", self.dest.display()));
        let program = output::program();
        lines.push(format!("train on it: {program} train --data {}", output::typed(&self.dest)));
        lines.join("\n")
    }
}

/// What was left out, with some of the names.
fn left_out(what: &str, names: &[String]) -> Option<String> {
    let shown = names.iter().take(NAMES_SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = if names.len() > NAMES_SHOWN { ", ..." } else { "" };
    (!names.is_empty()).then(|| format!("NOT taken: {} {what}: {shown}{more}", names.len()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: SplitArgs,
    }

    fn parse(line: &str) -> Result<SplitArgs, clap::Error> {
        Line::try_parse_from(line.split(' ')).map(|line| line.args)
    }

    #[test]
    fn a_link_is_symbolic_unless_said_otherwise() {
        assert!(parse("split photos data").unwrap().link.is_none());
        assert!(matches!(parse("split a b --link").unwrap().link, Some(Link::Symbolic)));
        assert!(matches!(parse("split a b --link hard").unwrap().link, Some(Link::Hard)));
    }

    #[test]
    fn a_ratio_that_is_none_is_refused() {
        for bad in ["4", "0:1", "a:b"] {
            let error = parse(&format!("split a b --ratio {bad}")).unwrap_err().to_string();
            assert!(error.contains(bad) && error.contains("4:1"), "{error}");
        }
    }

    #[test]
    fn the_report_counts_each_class_and_the_whole() {
        let dir = tempfile::tempdir().unwrap();
        let (source, dest) = (dir.path().join("photos"), dir.path().join("data"));
        for class in ["cat", "dog"] {
            std::fs::create_dir_all(source.join(class)).unwrap();
            for image in 0..5 {
                std::fs::write(source.join(class).join(format!("{image}.png")), b"x").unwrap();
            }
        }
        std::fs::write(source.join("cat/notes.txt"), b"x").unwrap();
        std::fs::create_dir(source.join("dog/2023")).unwrap();
        let transfer = Transfer::Copy;
        let options = SplitOptions { ratio: "4:1".parse().unwrap(), seed: 1, transfer };
        let report = split(&source, &dest, &options).unwrap();
        let text = Dataset { dest: "data".into(), report }.text();
        assert_eq!(
            text,
            "class      train  val\n\
             cat            4    1\n\
             dog            4    1\n\
             2 classes      8    2\n\
             NOT taken: 1 folders inside class folders, with all that is in them: dog/2023\n\
             NOT taken: 1 files that are no JPEG or PNG images of a class: cat/notes.txt\n\
             made data\n"
                .to_owned()
                + &format!("train on it: {} train --data data", output::program())
        );
    }
}
