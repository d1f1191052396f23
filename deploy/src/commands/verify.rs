//! `hw2 verify`: whether a device computes what PyTorch computed in f64.

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use hw2_worker::verify::{self, CaseReport, Decisions, LockstepReport, Outcome, Reference, Row};
use serde::Serialize;

use crate::compute_args::ComputeArgs;
use crate::output::{self, Column, Report, Table, count, significant};

/// Runs a reference file on a device and prints the error of every tensor
///
/// The first thing to run on new hardware. `--device plain-f32` and `plain-f64` are the loops that
/// specify every layer. A device that computes in 32 bits is also compared,
/// operation by operation, with 64-bit loops on equal inputs. The exit code is 1 when an error is
/// beyond its limit. A gradient that mere rounding has carried away, by a decision that flipped or
/// by a near-cancellation that magnified it, is marked but passes if every operation is right.
#[derive(Args, Debug)]
pub(crate) struct VerifyArgs {
    /// Reference file: worker/golden/hw2_net.json, or another one that make_golden.py there makes
    #[arg(value_name = "FILE")]
    file: PathBuf,

    #[command(flatten)]
    compute: ComputeArgs,

    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

/// Computes and compares.
pub(crate) fn run(args: &VerifyArgs) -> anyhow::Result<()> {
    let report = verify::run(&Reference::read(&args.file)?, &args.compute.choice()?)?;
    let beyond = |row: &&Row| row.outcome == Outcome::Beyond;
    let tensors = report.cases.iter().flat_map(|case| &case.rows).filter(beyond).count();
    let lockstep = report.cases.iter().filter_map(|case| case.lockstep.as_ref());
    let operations: usize = lockstep.clone().map(LockstepReport::beyond).sum();
    let others = lockstep.filter(|lockstep| !lockstep.repeats).count();
    let passed = report.passed;
    output::report(&Verdict(report), args.json)?;
    if !passed {
        bail!(
            "{tensors} tensors and {operations} operations are beyond their limits, {others} cases \
             gave other results when run again: do not train on this device"
        );
    }
    Ok(())
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
    let CaseReport { name, batch, image_size, classes, rows, lockstep, decisions } = case;
    let mut table = Table::new([
        Column::Left("tensor"),
        Column::Right("error"),
        Column::Right("l2 error"),
        Column::Right("limit"),
        Column::Left(""),
    ]);
    for Row { tensor, error, l2_error, limit, outcome } in rows {
        let remark = match outcome {
            Outcome::Within => "",
            Outcome::Flipped => "flipped",
            Outcome::Magnified => "magnified",
            Outcome::Beyond => "BEYOND",
        };
        table.row([
            tensor.clone(),
            significant(*error),
            l2_error.map_or("-".into(), significant),
            significant(*limit),
            remark.into(),
        ]);
    }
    let mut lines = vec![
        format!("\ncase {name}: {batch} images of {image_size}x{image_size}, {classes} classes"),
        table.to_string(),
        format!(
            "{} of {} tensors within their limits",
            rows.iter().filter(|row| row.outcome == Outcome::Within).count(),
            rows.len()
        ),
    ];
    lines.extend(decisions.as_ref().map(decisions_text));
    lines.extend(lockstep.as_ref().map(lockstep_text));
    lines.join("\n")
}

fn decisions_text(Decisions { all, flipped }: &Decisions) -> String {
    let [all, flipped] = [all, flipped].map(|number| count(*number as u64));
    format!("{flipped} of {all} ReLUs and pools decide otherwise than in 64 bits")
}

fn lockstep_text(lockstep: &LockstepReport) -> String {
    let LockstepReport { limit, operations, repeats } = lockstep;
    let within = operations.len() - lockstep.beyond();
    let worst = operations.first().map(|worst| {
        let remark = if within == operations.len() { "" } else { "  BEYOND" };
        format!("; the worst is {}: {}{remark}", worst.operation, significant(worst.error))
    });
    format!(
        "{within} of {} operations within {} on equal inputs{}{}",
        operations.len(),
        significant(*limit),
        worst.unwrap_or_default(),
        if *repeats { "" } else { "\nA SECOND RUN GAVE OTHER RESULTS" }
    )
}

#[cfg(test)]
mod tests {
    use hw2_worker::verify::OperationError;

    use super::*;

    #[test]
    fn what_is_beyond_its_limit_stands_out() {
        let row = |tensor: &str, error, outcome| Row {
            tensor: tensor.into(),
            error,
            l2_error: None,
            limit: 1e-4,
            outcome,
        };
        let rows = vec![
            row("training loss", 1.234e-7, Outcome::Within),
            row("training logits", 0.5, Outcome::Beyond),
            row("gradient of dense1.weight", 0.05, Outcome::Flipped),
        ];
        let operation =
            |operation: &str, error| OperationError { operation: operation.into(), error };
        let operations = vec![operation("gemm 2x3x4", 2e-5), operation("moments 1x1x5", 3.21e-7)];
        let mut case = CaseReport {
            name: "small".into(),
            batch: 2,
            image_size: 32,
            classes: 5,
            rows,
            lockstep: Some(LockstepReport { limit: 1e-5, operations, repeats: false }),
            decisions: Some(Decisions { all: 1234, flipped: 1 }),
        };
        assert_eq!(
            case_text(&case),
            "\ncase small: 2 images of 32x32, 5 classes\n\
             tensor                       error  l2 error  limit\n\
             training loss              1.23e-7         -   1e-4\n\
             training logits                0.5         -   1e-4  BEYOND\n\
             gradient of dense1.weight     0.05         -   1e-4  flipped\n\
             1 of 3 tensors within their limits\n\
             1 of 1,234 ReLUs and pools decide otherwise than in 64 bits\n\
             1 of 2 operations within 1e-5 on equal inputs; the worst is gemm 2x3x4: 2e-5  BEYOND\n\
             A SECOND RUN GAVE OTHER RESULTS"
        );
        (case.lockstep, case.decisions) = (None, None);
        assert!(case_text(&case).ends_with("within their limits"));
    }
}
