//! `hw2 verify`: whether a device computes what PyTorch computed in f64.

use std::path::PathBuf;

use anyhow::bail;
use clap::{Args, ValueEnum};
use hw2_worker::verify::{self, CaseReport, Reference, Row, Target};
use serde::Serialize;

use crate::output::{self, Column, Report, Table, significant};

/// Runs a reference file on a device and prints the error of every tensor
///
/// The first thing to run on new hardware. The exit code is 1 when an error is beyond its limit.
#[derive(Args, Debug)]
pub(crate) struct VerifyArgs {
    /// Reference file, as worker/golden/make_golden.py makes one
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// What to compute on
    #[arg(long, value_enum, default_value_t = Device::PlainF32)]
    device: Device,

    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Device {
    /// The plain loops that specify every layer, in 32-bit floats
    PlainF32,
    /// The same in 64-bit floats, with limits to match
    PlainF64,
}

/// Computes and compares.
pub(crate) fn run(args: &VerifyArgs) -> anyhow::Result<()> {
    let report = verify::run(&Reference::read(&args.file)?, args.device.target())?;
    let failures =
        report.cases.iter().flat_map(|case| &case.rows).filter(|row| !row.passed).count();
    output::report(&Verdict(report), args.json)?;
    if failures > 0 {
        bail!("{failures} tensors are beyond their limits: do not train on this device");
    }
    Ok(())
}

impl Device {
    fn target(self) -> Target {
        match self {
            Self::PlainF32 => Target::PlainF32,
            Self::PlainF64 => Target::PlainF64,
        }
    }
}

#[derive(Serialize)]
#[serde(transparent)]
struct Verdict(verify::Report);

impl Report for Verdict {
    fn text(&self) -> String {
        let head = format!("{} against {}", self.0.device, self.0.reference);
        let cases = self.0.cases.iter().map(case_text);
        std::iter::once(head).chain(cases).collect::<Vec<_>>().join("\n")
    }
}

fn case_text(case: &CaseReport) -> String {
    let CaseReport { name, batch, image_size, classes, rows } = case;
    let mut table = Table::new([
        Column::Left("tensor"),
        Column::Right("error"),
        Column::Right("l2 error"),
        Column::Right("limit"),
        Column::Left(""),
    ]);
    for Row { tensor, error, l2_error, limit, passed } in rows {
        table.row([
            tensor.clone(),
            significant(*error),
            l2_error.map_or("-".into(), significant),
            significant(*limit),
            if *passed { "" } else { "BEYOND" }.into(),
        ]);
    }
    format!(
        "\ncase {name}: {batch} images of {image_size}x{image_size}, {classes} classes\n{table}\n\
         {} of {} tensors within their limits",
        rows.iter().filter(|row| row.passed).count(),
        rows.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tensor_beyond_its_limit_stands_out() {
        let row = |tensor: &str, error, passed| Row {
            tensor: tensor.into(),
            error,
            l2_error: None,
            limit: 1e-4,
            passed,
        };
        let rows = vec![row("training loss", 1.234e-7, true), row("training logits", 0.5, false)];
        let case = CaseReport { name: "small".into(), batch: 2, image_size: 32, classes: 5, rows };
        assert_eq!(
            case_text(&case),
            "\ncase small: 2 images of 32x32, 5 classes\n\
             tensor             error  l2 error  limit\n\
             training loss    1.23e-7         -   1e-4\n\
             training logits      0.5         -   1e-4  BEYOND\n\
             1 of 2 tensors within their limits"
        );
    }
}
