//! Counting right answers: integers, so that evaluation is exact.

/// Counts over some images.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tally {
    /// Images.
    pub samples: u32,
    /// Images whose label has the largest logit.
    pub top1: u32,
    /// Images whose label is among the five largest logits.
    pub top5: u32,
    /// Sum of the cross-entropies in image order; an image with a non-finite logit adds nothing.
    pub loss_sum: f64,
}

impl Tally {
    /// Counts one batch: `logits` is (n, classes), `labels` is (n).
    pub fn new(logits: &[f32], labels: &[u32]) -> Self {
        let classes = logits.len() / labels.len().max(1);
        let mut tally = Self { samples: labels.len() as u32, ..Self::default() };
        for (logits, label) in logits.chunks_exact(classes.max(1)).zip(labels) {
            let label = *label as usize;
            let Some(rank) = rank(logits, label) else { continue };
            tally.top1 += u32::from(rank < 1);
            tally.top5 += u32::from(rank < 5);
            tally.loss_sum += cross_entropy(logits, label);
        }
        tally
    }
}

/// How many classes come before `label` when the largest logit comes first and ties go to the lower
/// class; none if a logit is not finite, which is a wrong answer whatever the label.
pub fn rank(logits: &[f32], label: usize) -> Option<usize> {
    let before = |(class, logit): (usize, &f32)| {
        *logit > logits[label] || (*logit == logits[label] && class < label)
    };
    let finite = logits.iter().all(|logit| logit.is_finite());
    finite.then(|| logits.iter().enumerate().filter(|entry| before(*entry)).count())
}

/// Probabilities of one image's classes, in f64 with `libm`.
pub fn softmax(logits: &[f32]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exps: Vec<f64> =
        logits.iter().map(|logit| libm::exp(f64::from(*logit) - f64::from(largest))).collect();
    let sum: f64 = exps.iter().sum();
    exps.into_iter().map(|exp| exp / sum).collect()
}

/// -ln softmax(logits)[label].
fn cross_entropy(logits: &[f32], label: usize) -> f64 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exp = |logit: &f32| libm::exp(f64::from(*logit) - f64::from(largest));
    let sum: f64 = logits.iter().map(exp).sum();
    libm::log(sum) + f64::from(largest) - f64::from(logits[label])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_go_to_the_lower_class() {
        assert_eq!(rank(&[1.0, 3.0, 3.0, 2.0], 1), Some(0));
        assert_eq!(rank(&[1.0, 3.0, 3.0, 2.0], 2), Some(1));
        assert_eq!(rank(&[1.0, 3.0, 3.0, 2.0], 0), Some(3));
        assert_eq!(rank(&[0.0; 6], 5), Some(5));
    }

    #[test]
    fn a_non_finite_logit_is_a_wrong_answer() {
        assert_eq!(rank(&[1.0, f32::NAN], 0), None);
        assert_eq!(rank(&[f32::INFINITY, 0.0], 0), None);
        let tally = Tally::new(&[f32::NAN, 0.0, 5.0, 0.0], &[1, 0]);
        assert_eq!((tally.samples, tally.top1, tally.top5), (2, 1, 1));
        assert!((tally.loss_sum - 0.006_715_348).abs() < 1e-8, "{}", tally.loss_sum);
    }

    #[test]
    fn softmax_is_the_exponential_of_the_cross_entropy() {
        let logits = [2.0, -1.0, 100.0, 99.5];
        let probabilities = softmax(&logits);
        assert!((probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        for (label, probability) in probabilities.iter().enumerate() {
            assert!((libm::log(*probability) + cross_entropy(&logits, label)).abs() < 1e-9);
        }
    }
}
