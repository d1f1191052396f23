//! A device that computes nothing and takes its time, as a GPU does: beside whoever asked it.

use std::time::{Duration, Instant};

use hw2_common::ids::Assignment;
use hw2_common::layout::ParamLayout;
use hw2_common::model::Network;
use hw2_common::trace;
use hw2_common::wire::Values;

use crate::ps::{Destination, Vector};
use crate::train::Ahead;

/// Part of a training step that backward is.
const BACKWARD: f64 = 2.0 / 3.0;

/// Where weights go that nobody computes with.
pub(super) struct Pace {
    /// Times of the parts of the forward pass, in order; those of backward are in the same ratio.
    forward: Vec<Duration>,
    backward: Vec<Duration>,
    ahead: Ahead,
    /// What comes after what is computed now.
    next: Option<Assignment>,
    /// When it will have done what it has been asked to do.
    done: Instant,
}

impl Pace {
    /// Takes `step` for a step of `network`, each layer as much of it as it has multiplications.
    pub(super) fn new(network: &Network, layout: &ParamLayout, step: Duration) -> Self {
        let buckets = layout.buckets();
        let mut shares = vec![0.0; buckets.len()];
        for entry in layout.params.entries().chunk_by(|a, b| a.layer == b.layer) {
            let has_it = |bucket: &std::ops::Range<usize>| bucket.contains(&entry[0].range.start);
            let bucket = buckets.iter().position(has_it).expect("buckets hold every parameter");
            shares[bucket] += network.layers[entry[0].layer].multiplications() as f64;
        }
        let sum: f64 = shares.iter().sum();
        let times = |part: f64| shares.iter().map(move |share| step.mul_f64(part * share / sum));
        Self {
            forward: times(1.0 - BACKWARD).rev().collect(),
            backward: times(BACKWARD).collect(),
            ahead: Ahead::new(buckets.into_iter().rev()),
            next: None,
            done: Instant::now(),
        }
    }

    /// Begins what is left of the training step of `assignment`, and says when each bucket of the
    /// gradient will be made. After it comes most likely `next`.
    pub(super) fn begin(&mut self, assignment: Assignment, next: Assignment) -> Vec<Instant> {
        let begun = self.ahead.end(assignment);
        self.next = Some(next);
        for part in begun..self.forward.len() {
            self.compute(self.forward[part], assignment, "forward");
        }
        let buckets = 0..self.backward.len();
        buckets.map(|one| self.compute(self.backward[one], assignment, "backward")).collect()
    }

    /// Computes after what it computes now, and says when that will be done.
    fn compute(&mut self, time: Duration, assignment: Assignment, what: &str) -> Instant {
        let began = self.done.max(Instant::now());
        self.done = began + time;
        trace::span_until("compute", began..self.done, assignment.step, || what.into());
        self.done
    }
}

impl Destination for Pace {
    fn receive(&mut self, vector: Vector, start: usize, values: Values<'_>) {
        if vector == Vector::Weights {
            self.ahead.arrived(start, values.len());
        }
    }

    fn renew(&mut self) {
        self.ahead.renew();
    }

    fn work_ahead(&mut self) -> bool {
        let Some(next) = self.next.filter(|_| self.ahead.is_ready()) else { return false };
        let part = self.ahead.begin(next);
        self.compute(self.forward[part], next, "forward");
        true
    }
}
