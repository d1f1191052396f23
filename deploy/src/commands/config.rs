//! `hw2 config`: every config key with its value, where that came from, and what a change does.

use clap::Args;
use hw2_common::config::{Class, Row};
use serde::Serialize;

use crate::job_args::JobArgs;
use crate::output::{self, Column, Report, Table};

/// Prints the config that the same flags give a run: every key, its value and its source
///
/// Of `hw2 train --workers N`, which sets `replicas` where nothing else does, it knows nothing.
/// A later layer wins: defaults, file, its profile, HW2_* variables (HW2_OPTIMIZER__BETA1), flags.
/// Keys of class `run` change the result and are fixed for the life of a run, `stop` keys say when
/// it ends and may change on resume, `place` keys never change the result.
#[derive(Args, Debug)]
pub(crate) struct ConfigArgs {
    #[command(flatten)]
    job: JobArgs,

    /// Print a config file with every value
    #[arg(long, conflicts_with = "json")]
    toml: bool,

    /// Say what each key means
    #[arg(long, conflicts_with = "toml")]
    explain: bool,

    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

/// Resolves the layers and prints the result.
pub(crate) fn run(args: &ConfigArgs) -> anyhow::Result<()> {
    let resolved = args.job.layers().load()?;
    if args.toml {
        return output::line(resolved.config.to_toml().trim_end());
    }
    output::report(&Keys { rows: resolved.rows(), explain: args.explain }, args.json)
}

#[derive(Serialize)]
#[serde(transparent)]
struct Keys {
    rows: Vec<Row>,
    #[serde(skip)]
    explain: bool,
}

impl Report for Keys {
    fn text(&self) -> String {
        if self.explain { self.explanation() } else { self.table().to_string() }
    }
}

impl Keys {
    fn table(&self) -> Table {
        // The value comes last, because the blocks of a model are many.
        let mut table = Table::new(["key", "class", "source", "value"].map(Column::Left));
        for Row { key, value, class, source, .. } in &self.rows {
            table.row([(*key).into(), name(*class).into(), source.clone(), value.clone()]);
        }
        table
    }

    fn explanation(&self) -> String {
        let lines = self.rows.iter().map(|Row { key, value, class, source, doc }| {
            format!("{key} = {value}  ({}; {source})\n    {doc}", name(*class))
        });
        lines.collect::<Vec<_>>().join("\n")
    }
}

fn name(class: Class) -> &'static str {
    match class {
        Class::Run => "run",
        Class::Stop => "stop",
        Class::Place => "place",
    }
}

#[cfg(test)]
mod tests {
    use hw2_common::config::{Flag, Layers};

    use super::*;

    #[test]
    fn an_explanation_says_what_a_key_means() {
        let text = Keys { rows: Layers::default().load().unwrap().rows(), explain: true }.text();
        let seed = "seed = 1  (run; default)\n    Of every random number of the run.\n";
        assert!(text.starts_with(seed), "{text}");
    }

    #[test]
    fn every_key_has_a_line_with_its_source() {
        let flag = Flag { name: "--steps".into(), key: "max_steps".into(), value: "7".into() };
        let layers = Layers { flags: vec![flag], ..Layers::default() };
        let text = Keys { rows: layers.load().unwrap().rows(), explain: false }.text();
        let line = |key: &str| {
            let line = text.lines().find(|line| line.starts_with(&format!("{key} ")));
            line.unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(line("max_steps"), "max_steps stop flag --steps 7");
        assert_eq!(line("seed"), "seed run default 1");
        assert_eq!(text.lines().count(), 1 + hw2_common::config::keys().count());
    }
}
