//! What a run of a reference file says.

use serde::Serialize;

/// How far off a device is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The device in words.
    pub device: String,
    /// Where the reference values come from.
    pub reference: String,
    /// In the order of the file.
    pub cases: Vec<CaseReport>,
    /// Whether every case passed.
    pub passed: bool,
}

/// One case of a reference file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CaseReport {
    /// Its name.
    pub name: String,
    /// Images.
    pub batch: usize,
    /// Rows and columns of an image.
    pub image_size: usize,
    /// Classes.
    pub classes: usize,
    /// One for each tensor compared.
    pub rows: Vec<Row>,
    /// Every operation by itself. None for arithmetic in f64, which would be compared with itself.
    pub lockstep: Option<LockstepReport>,
    /// How decisions fell, where a gradient was beyond its limit and every operation within its
    /// own.
    pub decisions: Option<Decisions>,
}

/// One tensor compared with its reference.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// As `training loss` or `gradient of conv_stack1.conv1.weight`.
    pub tensor: String,
    /// Norm of the difference over the norm of the reference, over the values given.
    pub error: f64,
    /// Difference of the norms of the whole tensor over that of the reference, where it is given.
    pub l2_error: Option<f64>,
    /// What both may be at most.
    pub limit: f64,
    /// Whether they are, and if not, why.
    pub outcome: Outcome,
}

/// What becomes of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Within its limit.
    Within,
    /// Beyond its limit because a ReLU or an arg-max, on inputs that differ by rounding, fell the
    /// other way than in f64. Passes.
    Flipped,
    /// Beyond its limit although every decision fell as in f64: a batch normalisation over few,
    /// nearly equal numbers has magnified the rounding of its inputs. Passes.
    Magnified,
    /// Beyond its limit for no such reason.
    Beyond,
}

/// The operations of a case, each compared with the plain loops in f64 on equal inputs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LockstepReport {
    /// What every error may be at most.
    pub limit: f64,
    /// By name and sizes, the furthest off first.
    pub operations: Vec<OperationError>,
    /// Whether the device made the same of the case without being stopped after every operation.
    /// Otherwise its operations run into each other, and are right only one at a time.
    pub repeats: bool,
}

/// An operation compared.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OperationError {
    /// Its name and sizes.
    pub operation: String,
    /// Norm of the difference over the norm of the reference, of whichever call and result it is
    /// largest.
    pub error: f64,
}

/// Where ReLUs passed and which numbers pools chose, in the forward pass of a training step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Decisions {
    /// How many there are.
    pub all: usize,
    /// How many fell otherwise in the plain loops in f64.
    pub flipped: usize,
}

impl CaseReport {
    /// Whether every tensor and every operation is within its limit, or beyond it for a good
    /// reason.
    pub fn passed(&self) -> bool {
        self.rows.iter().all(|row| row.outcome != Outcome::Beyond)
            && self.lockstep.as_ref().is_none_or(LockstepReport::passed)
    }
}

impl LockstepReport {
    /// Whether every operation is within the limit, alone and among the others.
    pub fn passed(&self) -> bool {
        self.beyond() == 0 && self.repeats
    }

    /// How many operations are not within the limit.
    pub fn beyond(&self) -> usize {
        let within = self.operations.iter().filter(|operation| operation.error <= self.limit);
        self.operations.len() - within.count()
    }
}
