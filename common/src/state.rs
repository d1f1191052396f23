//! The state of a run: all that decides its future, and that the server alone owns.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::config::{Config, Optimizer};
use crate::ids::GlobalStep;
use crate::layout::ParamLayout;

/// A flat vector that may be shared; who changes it while others read it makes a copy first.
pub type Flat = Arc<Vec<f32>>;

/// Everything a commit changes.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// Counters and rates.
    pub progress: Progress,
    /// The flat vectors.
    pub vectors: Vectors,
}

/// The flat vectors; all but `buffers` are described by [`ParamLayout::params`].
#[derive(Clone, Debug, PartialEq)]
pub struct Vectors {
    /// Parameters that the workers compute with.
    pub weights: Flat,
    /// Adam's first moment.
    pub moment1: Flat,
    /// Adam's second moment.
    pub moment2: Flat,
    /// Exponential moving average of the weights, which evaluation uses.
    pub ema: Flat,
    /// BN running statistics, described by [`ParamLayout::buffers`].
    pub buffers: Flat,
}

impl Vectors {
    /// The same, but of the vectors of parameters only this range.
    pub fn of_params(self, params: std::ops::Range<usize>) -> Self {
        if params == (0..self.weights.len()) {
            return self;
        }
        let of = |vector: Flat| Arc::new(vector[params.clone()].to_vec());
        let Self { weights, moment1, moment2, ema, buffers } = self;
        let [weights, moment1, moment2, ema] = [weights, moment1, moment2, ema].map(of);
        Self { weights, moment1, moment2, ema, buffers }
    }
}

/// The scalar part of the state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Committed steps.
    pub global_step: GlobalStep,
    /// Committed steps that made no update because a contribution was not finite.
    pub skipped_steps: u64,
    /// Adam's current learning rate.
    pub learning_rate: f64,
    /// Times the learning rate has halved.
    pub halvings: u32,
    /// Evaluations in a row without a gain.
    pub stale_evaluations: u32,
    /// Top-1 that the next evaluation must exceed by min_delta to be a gain.
    pub plateau_top1: Option<f64>,
    /// The newest evaluation.
    pub last_evaluation: Option<Evaluation>,
    /// The evaluation with the highest top-1, the first of equals, among those at multiples of
    /// checkpoint_every: an extra one at the last step must leave no trace in a longer run.
    pub best_evaluation: Option<Evaluation>,
}

/// Counts over the whole validation set, each image once.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Whose EMA weights and running statistics were evaluated.
    pub step: GlobalStep,
    /// Images.
    pub samples: u32,
    /// Images whose label has the largest logit.
    pub top1: u32,
    /// Images whose label is among the five largest logits.
    pub top5: u32,
    /// Mean cross-entropy, L2 not included.
    pub loss: f64,
}

impl Evaluation {
    /// Part of the images that are right.
    pub fn top1_rate(&self) -> f64 {
        f64::from(self.top1) / f64::from(self.samples)
    }
}

impl Progress {
    /// Before the first step.
    pub fn initial(optimizer: &Optimizer) -> Self {
        Self {
            global_step: GlobalStep(0),
            skipped_steps: 0,
            learning_rate: optimizer.learning_rate,
            halvings: 0,
            stale_evaluations: 0,
            plateau_top1: None,
            last_evaluation: None,
            best_evaluation: None,
        }
    }

    /// The evaluation with the highest top-1 so far, an extra one at the last step included.
    pub fn best_known(&self) -> Option<Evaluation> {
        let (best, last) = (self.best_evaluation, self.last_evaluation);
        let is_better = |last: &Evaluation| best.is_none_or(|best| last.top1 > best.top1);
        last.filter(is_better).or(best)
    }

    /// Updates made, which is Adam's and the EMA's t.
    pub fn updates(&self) -> u64 {
        self.global_step.0 - self.skipped_steps
    }
}

impl State {
    /// Before the first step: initial weights, which the EMA starts from, and zero moments.
    pub fn initial(config: &Config, layout: &ParamLayout) -> Self {
        let weights = Arc::new(layout.initial_params(config.seed));
        let zeros = || Arc::new(vec![0.0; layout.params.len()]);
        Self {
            progress: Progress::initial(&config.optimizer),
            vectors: Vectors {
                ema: Arc::clone(&weights),
                weights,
                moment1: zeros(),
                moment2: zeros(),
                buffers: Arc::new(layout.initial_buffers()),
            },
        }
    }
}
