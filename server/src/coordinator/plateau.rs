//! The plateau schedule: what an evaluation does to the learning rate, and when training is over.

use hw2_common::config::{Config, Optimizer};
use hw2_common::job::Job;
use hw2_common::state::{Evaluation, Progress};

/// What an evaluation decides.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Verdict {
    /// Whether top-1 rose by more than `min_delta`.
    pub(crate) gain: bool,
    /// Evaluations in a row without a gain, this one included.
    pub(crate) stale: u32,
    /// Whether the learning rate halves.
    pub(crate) halve: bool,
    /// Why, in words.
    pub(crate) reason: String,
}

/// Decides what `evaluation` means for a run that stands at `progress`.
pub(crate) fn judge(
    progress: &Progress,
    evaluation: &Evaluation,
    optimizer: &Optimizer,
) -> Verdict {
    let top1 = evaluation.top1_rate();
    match progress.plateau_top1 {
        Some(before) if top1 <= before + optimizer.min_delta => {
            let stale = progress.stale_evaluations + 1;
            let halve = stale >= optimizer.lr_patience;
            let end = match halve {
                true => "the learning rate halves",
                false => "the learning rate stays",
            };
            let reason =
                format!("top-1 {top1:.4} is no gain on {before:.4} for the {stale}. time: {end}");
            Verdict { gain: false, stale, halve, reason }
        }
        Some(before) => {
            let reason = format!("top-1 rose from {before:.4} to {top1:.4}");
            Verdict { gain: true, stale: 0, halve: false, reason }
        }
        None => {
            let reason = format!("top-1 {top1:.4} is the first");
            Verdict { gain: true, stale: 0, halve: false, reason }
        }
    }
}

/// Writes `verdict` into `progress`. It does not depend on when training ends, so that a run which
/// goes on with another `stop_patience` equals one that always had it.
pub(crate) fn apply(verdict: &Verdict, evaluation: &Evaluation, progress: &mut Progress) {
    progress.stale_evaluations = verdict.stale;
    if verdict.gain {
        progress.plateau_top1 = Some(evaluation.top1_rate());
    }
    if verdict.halve {
        progress.learning_rate /= 2.0;
        progress.halvings += 1;
    }
}

/// Whether nothing is left to be done of a run that stands at `progress`.
pub fn is_over(job: &Job, progress: &Progress) -> bool {
    !evaluation_due(job, progress) && finished(progress, &job.config).is_some()
}

/// Whether the state is to be evaluated before anything else.
pub(crate) fn evaluation_due(job: &Job, progress: &Progress) -> bool {
    let step = progress.global_step;
    let evaluated = progress.last_evaluation.is_some_and(|last| last.step == step);
    job.eval_due(step) && !evaluated
}

/// Why there is no further step, if there is none.
pub(crate) fn finished(progress: &Progress, config: &Config) -> Option<String> {
    let (step, stale) = (progress.global_step.0, progress.stale_evaluations);
    if step >= config.max_steps {
        return Some(format!("step {step} of max_steps = {} is reached", config.max_steps));
    }
    if stale >= config.stop_patience {
        return Some(format!(
            "{stale} evaluations without a gain reach stop_patience = {}",
            config.stop_patience
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use hw2_common::ids::GlobalStep;

    fn evaluation(top1: u32) -> Evaluation {
        Evaluation { step: GlobalStep(0), samples: 100, top1, top5: 100, loss: 1.0 }
    }

    /// Feeds the top-1 counts of 100 and returns (stale, halvings) after each.
    fn run(optimizer: &Optimizer, counts: &[u32]) -> Vec<(u32, u32)> {
        let mut progress = Progress::initial(optimizer);
        let mut seen = Vec::new();
        for count in counts {
            let evaluation = evaluation(*count);
            let verdict = judge(&progress, &evaluation, optimizer);
            apply(&verdict, &evaluation, &mut progress);
            seen.push((progress.stale_evaluations, progress.halvings));
        }
        let halved = optimizer.learning_rate / f64::from(1 << progress.halvings);
        assert_eq!(progress.learning_rate, halved);
        seen
    }

    #[test]
    fn the_rate_halves_at_lr_patience_and_at_each_further_stale_evaluation() {
        let optimizer = Optimizer { lr_patience: 3, ..Optimizer::default() };
        assert_eq!(
            run(&optimizer, &[10, 10, 9, 8, 10, 10, 11, 11, 11, 11]),
            [(0, 0), (1, 0), (2, 0), (3, 1), (4, 2), (5, 3), (0, 3), (1, 3), (2, 3), (3, 4)]
        );
    }

    #[test]
    fn a_patience_of_one_halves_at_every_stale_evaluation() {
        let optimizer = Optimizer { lr_patience: 1, ..Optimizer::default() };
        assert_eq!(run(&optimizer, &[0, 0, 0, 1, 1]), [(0, 0), (1, 1), (2, 2), (0, 2), (1, 3)]);
    }

    #[test]
    fn a_rise_of_min_delta_itself_is_no_gain_and_does_not_move_the_mark() {
        let optimizer = Optimizer { min_delta: 0.5, ..Optimizer::default() };
        assert_eq!(run(&optimizer, &[0, 50, 50, 51]), [(0, 0), (1, 0), (2, 0), (0, 0)]);
        let optimizer = Optimizer { min_delta: 0.0, ..Optimizer::default() };
        assert_eq!(run(&optimizer, &[5, 5, 6]), [(0, 0), (1, 0), (0, 0)]);
    }

    #[test]
    fn training_ends_at_max_steps_or_at_stop_patience() {
        let config = Config { max_steps: 10, stop_patience: 2, ..Config::default() };
        let mut progress = Progress::initial(&config.optimizer);
        assert_eq!(finished(&progress, &config), None);
        progress.stale_evaluations = 2;
        assert!(finished(&progress, &config).unwrap().contains("stop_patience = 2"));
        progress.stale_evaluations = 0;
        progress.global_step = GlobalStep(10);
        assert!(finished(&progress, &config).unwrap().contains("max_steps = 10"));
    }
}
