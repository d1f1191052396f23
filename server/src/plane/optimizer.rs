//! Adam in TensorFlow's form (Kingma and Ba, "Adam", 2015, section 2, the reformulation).
//!
//! With g the gradient and t the number of the update, counted from 1:
//!
//! ```text
//! m    = m + (1 - beta1) (g - m)
//! v    = v + (1 - beta2) (g g - v)
//! lr_t = lr sqrt(1 - beta2^t) / (1 - beta1^t)
//! w    = w - lr_t m / (sqrt(v) + epsilon)
//! ```
//!
//! lr_t is computed in f64 and rounded once; the rest is f32 without fused multiply-add.

use hw2_common::config::Optimizer;

/// The scalars of one update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Adam {
    rate: f32,
    beta1_rest: f32,
    beta2_rest: f32,
    epsilon: f32,
}

impl Adam {
    /// For update number `t`, counted from 1, at learning rate `learning_rate`.
    pub(crate) fn new(optimizer: &Optimizer, learning_rate: f64, t: u64) -> Self {
        let Optimizer { beta1, beta2, epsilon, .. } = *optimizer;
        let rest = |beta: f64| 1.0 - libm::pow(beta, t as f64);
        let rate = learning_rate * rest(beta2).sqrt() / rest(beta1);
        Self {
            rate: rate as f32,
            beta1_rest: (1.0 - beta1) as f32,
            beta2_rest: (1.0 - beta2) as f32,
            epsilon: epsilon as f32,
        }
    }

    /// The moments become the new ones.
    #[inline(always)]
    pub(crate) fn average(&self, gradient: f32, m: &mut f32, v: &mut f32) {
        *m += self.beta1_rest * (gradient - *m);
        *v += self.beta2_rest * (gradient * gradient - *v);
    }

    /// The new value of a weight, from the new moments.
    #[inline(always)]
    pub(crate) fn step(&self, weight: f32, m: f32, v: f32) -> f32 {
        weight - self.rate * m / (v.sqrt() + self.epsilon)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_updates_follow_the_papers_formula_in_f64() {
        let optimizer = Optimizer::default();
        let Optimizer { learning_rate, beta1, beta2, epsilon, .. } = optimizer;
        let (mut w, mut m, mut v) = (0.5_f32, 0.0_f32, 0.0_f32);
        let (mut w64, mut m64, mut v64) = (0.5_f64, 0.0_f64, 0.0_f64);
        for t in 1..=300_u64 {
            let g = 0.3 * (t as f64 * 0.7).sin() + 0.05;
            let adam = Adam::new(&optimizer, learning_rate, t);
            adam.average(g as f32, &mut m, &mut v);
            w = adam.step(w, m, v);
            m64 = beta1 * m64 + (1.0 - beta1) * g;
            v64 = beta2 * v64 + (1.0 - beta2) * g * g;
            let (m_hat, v_hat) =
                (m64 / (1.0 - beta1.powi(t as i32)), v64 / (1.0 - beta2.powi(t as i32)));
            w64 -= learning_rate * m_hat / (v_hat.sqrt() + epsilon);
        }
        assert!((w64 - 0.5).abs() > 0.02, "it moved: {w64}");
        assert!((f64::from(w) - w64).abs() < 1e-5, "{w} and {w64}");
        assert!((f64::from(m) - m64).abs() < 1e-6 && (f64::from(v) - v64).abs() < 1e-6);
    }

    #[test]
    fn the_first_update_moves_every_weight_by_the_learning_rate() {
        let adam = Adam::new(&Optimizer::default(), 1e-3, 1);
        for gradient in [1e-3_f32, 2.0, -7.0] {
            let (mut m, mut v) = (0.0, 0.0);
            adam.average(gradient, &mut m, &mut v);
            let moved = adam.step(0.0, m, v);
            assert!((moved + 1e-3 * gradient.signum()).abs() < 1e-6, "{gradient}: {moved}");
        }
    }
}
