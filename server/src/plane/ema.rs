//! The exponential moving average of the weights, which evaluation uses.

use std::sync::Arc;

use super::pool::Buffer;
use super::strips::widest;

/// The scalar of one update: average = average + rest (weight - average).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Ema {
    rest: f32,
}

impl Ema {
    /// For update number `t`, counted from 1: the decay is min(`decay_max`, (1 + t) / (10 + t)), so
    /// that the average forgets the initial weights soon.
    pub(crate) fn new(decay_max: f64, t: u64) -> Self {
        let t = t as f64;
        let decay = decay_max.min((1.0 + t) / (10.0 + t));
        Self { rest: (1.0 - decay) as f32 }
    }

    /// The new average.
    #[inline(always)]
    pub(crate) fn step(&self, average: f32, weight: f32) -> f32 {
        average + self.rest * (weight - average)
    }
}

/// The average of one chunk. It takes updates in two at a time, when the weights after both are at
/// hand, and is read and written half as often as if one by one; the bits are the same.
#[derive(Debug)]
pub(crate) struct Average {
    pub(super) values: Arc<Buffer>,
    /// The update that it lacks, which made the present weights.
    pub(super) lacks: Option<Ema>,
}

impl Average {
    /// That lacks nothing.
    pub(super) fn whole(values: Buffer) -> Self {
        Self { values: Arc::new(values), lacks: None }
    }

    /// The values after the update that made `weights`, the present ones.
    pub(crate) fn of(&self, weights: &[f32]) -> Arc<Buffer> {
        let Some(ema) = self.lacks else { return Arc::clone(&self.values) };
        let mut values = self.values.copy();
        assert_eq!(values.len(), weights.len(), "an average of each weight");
        widest(
            #[inline(always)]
            || {
                for (value, weight) in values.iter_mut().zip(weights) {
                    *value = ema.step(*value, *weight);
                }
            },
        );
        Arc::new(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_decay_grows_to_its_maximum() {
        let rest = |t| Ema::new(0.9999, t).rest;
        assert_eq!(rest(1), (9.0_f64 / 11.0) as f32);
        assert_eq!(rest(90), 0.09);
        assert_eq!(rest(1_000_000), 1.0e-4);
        assert_eq!(Ema::new(0.5, 1_000).rest, 0.5);
    }

    #[test]
    fn the_average_follows_the_formula_in_f64() {
        let (mut average, mut average64) = (1.0_f32, 1.0_f64);
        for t in 1..=100 {
            let weight = (t as f64 * 0.1).cos();
            let decay = (1.0 + t as f64) / (10.0 + t as f64);
            average = Ema::new(0.9999, t).step(average, weight as f32);
            average64 = decay * average64 + (1.0 - decay) * weight;
        }
        assert!((f64::from(average) - average64).abs() < 1e-6, "{average} and {average64}");
    }
}
