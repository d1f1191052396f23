//! The form of a reference file.

use std::collections::BTreeMap;
use std::path::Path;

use hw2_common::layout::ParamLayout;
use serde::Deserialize;

use super::{VerifyError, fill};

/// What `make_golden.py` writes.
#[derive(Clone, Debug, Deserialize)]
pub struct Reference {
    /// The program that computed the values.
    pub made_by: String,
    /// Networks of different sizes.
    pub cases: Vec<Case>,
}

/// Inputs, as formulas, and what comes of them.
#[derive(Clone, Debug, Deserialize)]
pub struct Case {
    /// For people.
    pub name: String,
    /// Images.
    pub batch: usize,
    /// Rows and columns of an image.
    pub image_size: usize,
    /// Classes.
    pub classes: usize,
    /// Of dense1.
    pub weight_decay: f64,
    /// Number of the tensor that fills the images (n, h, w, c).
    pub image_tensor: u32,
    /// Bound of that fill.
    pub image_bound: f64,
    /// Class of each image.
    pub labels: Vec<u32>,
    /// Every parameter and running statistic.
    pub(super) order: Vec<Fill>,
    pub(super) train: Training,
    pub(super) eval: Evaluation,
}

/// A tensor as a formula.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Fill {
    pub(super) tensor: u32,
    pub(super) name: String,
    shape: Vec<usize>,
    bound: f64,
    offset: f64,
}

/// A forward and backward pass with the statistics of the batch and without dropout.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Training {
    /// With the penalty of weight decay.
    pub(super) loss: f64,
    pub(super) logits: Vec<Vec<f64>>,
    /// By the name of the parameter.
    pub(super) grad: BTreeMap<String, Probe>,
    /// By the name of the BN.
    pub(super) batch_stats: BTreeMap<String, Moments>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Moments {
    pub(super) mean: Probe,
    pub(super) var: Probe,
}

/// A forward pass with the running statistics.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Evaluation {
    /// Without any penalty.
    pub(super) loss: f64,
    pub(super) logits: Vec<Vec<f64>>,
}

/// Some values of a tensor, and its norm.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Probe {
    pub(super) l2: f64,
    /// Indices of the values.
    pub(super) at: Vec<usize>,
    pub(super) value: Vec<f64>,
}

impl Reference {
    /// Reads a reference file.
    ///
    /// # Errors
    /// If it cannot be read or is of another form.
    pub fn read(path: &Path) -> Result<Self, VerifyError> {
        let read = std::fs::read_to_string(path);
        let path = path.display().to_string();
        let text = match read {
            Ok(text) => text,
            Err(source) => return Err(VerifyError::Read { path, source }),
        };
        serde_json::from_str(&text).map_err(|source| VerifyError::Form { path, source })
    }
}

impl Fill {
    /// Its values, row-major.
    pub(super) fn values(&self) -> Vec<f32> {
        fill(self.tensor, self.shape.iter().product(), self.bound, self.offset)
    }
}

impl Case {
    /// Says what in this case does not fit a network of the given layout.
    pub(super) fn check(&self, layout: &ParamLayout) -> Result<(), String> {
        let tensors = || [&layout.params, &layout.buffers].into_iter().flat_map(|t| t.entries());
        for entry in tensors() {
            let shape = self.order.iter().find(|fill| fill.name == entry.name);
            match shape.map(|fill| &fill.shape) {
                Some(shape) if *shape == entry.shape => {}
                Some(shape) => {
                    return Err(format!("{} is {shape:?}, not {:?}", entry.name, entry.shape));
                }
                None => return Err(format!("there is no {}", entry.name)),
            }
        }
        for (name, probe) in &self.train.grad {
            let entry = layout.params.get(name);
            let len = entry.ok_or_else(|| format!("the network has no {name}"))?.range.len();
            probe.check(len).map_err(|problem| format!("gradient of {name}: {problem}"))?;
        }
        for (name, moments) in &self.train.batch_stats {
            for (part, probe) in [("mean", &moments.mean), ("var", &moments.var)] {
                let entry = layout.buffers.get(&format!("{name}.running_{part}"));
                let len = entry.ok_or_else(|| format!("the network has no {name}"))?.range.len();
                probe.check(len).map_err(|problem| format!("{part} of {name}: {problem}"))?;
            }
        }
        self.check_rows()
    }

    fn check_rows(&self) -> Result<(), String> {
        if self.batch == 0 || self.labels.len() != self.batch {
            return Err(format!("{} labels for a batch of {}", self.labels.len(), self.batch));
        }
        if let Some(label) = self.labels.iter().find(|label| **label as usize >= self.classes) {
            return Err(format!("label {label} is not one of {} classes", self.classes));
        }
        for logits in [&self.train.logits, &self.eval.logits] {
            if logits.len() != self.batch || logits.iter().any(|row| row.len() != self.classes) {
                return Err(format!("logits are not {} x {}", self.batch, self.classes));
            }
        }
        Ok(())
    }
}

impl Probe {
    /// Says why this cannot be a probe of a tensor of `len` values.
    fn check(&self, len: usize) -> Result<(), String> {
        if self.at.is_empty() || self.at.len() != self.value.len() {
            return Err(format!("{} places for {} values", self.at.len(), self.value.len()));
        }
        match self.at.iter().find(|at| **at >= len) {
            Some(at) => Err(format!("there is no element {at} of {len}")),
            None => Ok(()),
        }
    }
}
