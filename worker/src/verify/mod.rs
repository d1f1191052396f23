//! Runs a reference file on a device and says how far off every tensor is.
//!
//! The first thing to run on new hardware. A reference file holds, for some sizes of the ten-layer
//! network, what PyTorch computed in f64; `golden/make_golden.py` makes one. A device in f32 is
//! also compared operation by operation with the plain loops in f64, on equal inputs: that finds
//! what is wrong where the network as a whole only shows that something is.

mod compare;
mod fill;
mod lockstep;
mod measured;
mod recorder;
mod reference;
mod report;
mod watched;

use std::sync::Arc;

use hw2_common::config::Precision;

use crate::device::plain::Plain;
use crate::device::{Choice, DeviceError, Kind, Pipeline, Serial};
use compare::{Limits, excuse};
pub use fill::fill;
use lockstep::{Errors, Lockstep};
use measured::{measure, measure_and_record};
use recorder::differing;
pub use reference::{Case, Reference};
pub use report::{CaseReport, Decisions, LockstepReport, OperationError, Outcome, Report, Row};
use watched::Watched;

/// Why a reference file could not be run.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The file cannot be read.
    #[error("cannot read the reference file {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not of the form that `make_golden.py` writes.
    #[error("{path} is no reference file, as worker/golden/make_golden.py writes one: {source}")]
    Form {
        /// The file.
        path: String,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A case does not describe the ten-layer network.
    #[error("case `{case}` of the reference file: {problem}")]
    Case {
        /// Its name.
        case: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The device failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

/// Runs every case of `reference` on the device that `choice` names.
///
/// # Errors
/// A case that describes another network, or a failing device. A wrong result is no error: it is in
/// the report.
pub fn run(reference: &Reference, choice: &Choice) -> Result<Report, VerifyError> {
    let choice = &choice.resolve();
    let mut device = String::new();
    let mut cases = Vec::new();
    for case in &reference.cases {
        let (name, report) = match choice.kind {
            Kind::PlainF64 => in_f64(case)?,
            _ => in_f32(|| choice.open(Precision::Fp32), case)?,
        };
        device = name;
        cases.push(report);
    }
    let passed = cases.iter().all(CaseReport::passed);
    Ok(Report { device, reference: reference.made_by.clone(), cases, passed })
}

/// The plain loops in f64, in words, and what they make of `case`.
fn in_f64(case: &Case) -> Result<(String, CaseReport), VerifyError> {
    let measured = measure(Serial::new(Plain::<f64>::new()), case, Limits::F64)?;
    Ok((measured.device.clone(), measured.report(case, None, None)))
}

/// A device in words, and what it makes of `case`: once undisturbed, and once operation by
/// operation. `make` starts it.
fn in_f32<D: Pipeline<Elem = f32>>(
    make: impl Fn() -> Result<D, DeviceError>,
    case: &Case,
) -> Result<(String, CaseReport), VerifyError> {
    let limits = Limits::f32(case.image_size);
    let mut measured = measure(make()?, case, limits)?;
    let errors = Errors::default();
    let watched = Watched::new(make()?, Lockstep::new(Arc::clone(&errors)));
    let (again, record) = measure_and_record(watched, case, limits)?;
    let lockstep = lockstep::report(&errors, again.comparison == measured.comparison);
    let mut decisions = None;
    if lockstep.passed() && !measured.is_within() {
        let (exact, exact_record) = measure_and_record(Plain::<f64>::new(), case, Limits::F64)?;
        let differing = differing(&record, &exact_record);
        if exact.is_within() {
            excuse(&mut measured.comparison.gradients, differing.flipped > 0);
        }
        decisions = Some(differing);
    }
    Ok((measured.device.clone(), measured.report(case, Some(lockstep), decisions)))
}

#[cfg(test)]
mod tests;
