//! The sum of a step's contributions, in replica order whatever order they arrive in.

use std::collections::BTreeMap;

use hw2_common::ids::ReplicaId;
use rayon::ThreadPool;
use rayon::prelude::*;

use super::buffers::Buffers;

/// Values that one thread adds at a time.
const STRIP: usize = 32 * 1024;

/// The tensors of one contribution.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Tensors {
    /// (params)
    pub(crate) gradient: Vec<f32>,
    /// BN statistics of the micro-batch, (buffers).
    pub(crate) statistics: Vec<f32>,
}

/// All contributions of a step. The gradient is (`before` + `last`) / replicas: the last addition
/// is left to the pass that makes the update, which reads each value only once.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Whole {
    /// Sum of the gradients of all replicas but the last, in replica order; none for one replica.
    pub(crate) before: Option<Vec<f32>>,
    /// The last replica's gradient.
    pub(crate) last: Vec<f32>,
    /// Sum of the statistics, in replica order.
    pub(crate) statistics: Vec<f32>,
}

/// Contributions of the current step.
pub(crate) struct Aggregate {
    replicas: u32,
    buffers: Buffers,
    /// Replicas below this one are in the sum.
    next: u32,
    sum: Option<Tensors>,
    last: Option<Vec<f32>>,
    /// Contributions that wait for a lower replica.
    waiting: BTreeMap<u32, Tensors>,
}

impl Aggregate {
    /// Empty; gradients go back to `buffers` when they are added.
    pub(crate) fn new(replicas: u32, buffers: Buffers) -> Self {
        Self { replicas, buffers, next: 0, sum: None, last: None, waiting: BTreeMap::new() }
    }

    /// Takes the contribution of `replica` in, and adds what is next in order.
    pub(crate) fn add(&mut self, threads: &ThreadPool, replica: ReplicaId, tensors: Tensors) {
        assert!((self.next..self.replicas).contains(&replica.0), "{replica} counts once");
        let twice = self.waiting.insert(replica.0, tensors);
        assert!(twice.is_none(), "{replica} counts once");
        while let Some(tensors) = self.waiting.remove(&self.next) {
            self.next += 1;
            self.add_next(threads, tensors);
        }
    }

    fn add_next(&mut self, threads: &ThreadPool, tensors: Tensors) {
        let Tensors { gradient, statistics } = tensors;
        let is_last = self.next == self.replicas;
        match &mut self.sum {
            None if is_last => {
                self.sum = Some(Tensors { gradient: Vec::new(), statistics });
                self.last = Some(gradient);
            }
            None => self.sum = Some(Tensors { gradient, statistics }),
            Some(sum) => {
                add(&mut sum.statistics, &statistics);
                if is_last {
                    self.last = Some(gradient);
                } else {
                    threads.install(|| {
                        let strips = sum.gradient.par_chunks_mut(STRIP);
                        strips.zip(gradient.par_chunks(STRIP)).for_each(|(a, b)| add(a, b));
                    });
                    self.buffers.give(gradient);
                }
            }
        }
    }

    /// The contributions of all replicas, after which the next step begins.
    ///
    /// # Panics
    /// If one is missing.
    pub(crate) fn take(&mut self) -> Whole {
        assert_eq!(self.next, self.replicas, "a step commits whole");
        self.next = 0;
        let sum = self.sum.take().expect("every replica is in it");
        Whole {
            before: Some(sum.gradient).filter(|gradient| !gradient.is_empty()),
            last: self.last.take().expect("every replica is in"),
            statistics: sum.statistics,
        }
    }

    /// Forgets all contributions.
    pub(crate) fn discard(&mut self) {
        self.next = 0;
        let waiting = std::mem::take(&mut self.waiting).into_values();
        let gradients = waiting.chain(self.sum.take()).map(|tensors| tensors.gradient);
        let gradients: Vec<_> = gradients.chain(self.last.take()).collect();
        for gradient in gradients.into_iter().filter(|gradient| !gradient.is_empty()) {
            self.buffers.give(gradient);
        }
    }
}

fn add(sum: &mut [f32], values: &[f32]) {
    sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plane::threads;

    const LEN: usize = STRIP + 3;

    fn tensors(replica: u32) -> Tensors {
        let value = [1e8, 1.0, -1e8, 3.0][replica as usize];
        Tensors { gradient: vec![value; LEN], statistics: vec![value * 2.0; 2] }
    }

    fn sum(order: &[u32]) -> (f32, f32) {
        let buffers = Buffers::new(LEN, 9);
        let mut aggregate = Aggregate::new(order.len() as u32, buffers);
        for replica in order {
            aggregate.add(&threads(2), ReplicaId(*replica), tensors(*replica));
        }
        let whole = aggregate.take();
        let mut sum = whole.before.unwrap_or(vec![0.0; LEN]);
        add(&mut sum, &whole.last);
        assert!(sum.iter().all(|value| *value == sum[0]));
        (sum[0], whole.statistics[1])
    }

    #[test]
    fn contributions_are_added_in_replica_order() {
        // 1e8 + 1 is 1e8 in f32, so any other order gives another sum.
        assert_eq!((1e8_f32 + 1.0) - 1e8 + 3.0, 3.0);
        for order in [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2], [2, 0, 3, 1]] {
            assert_eq!(sum(&order), (3.0, 6.0), "{order:?}");
        }
        assert_eq!(sum(&[0]), (1e8, 2e8));
    }

    #[test]
    fn what_is_discarded_leaves_nothing_and_keeps_its_memory() {
        let buffers = Buffers::new(LEN, 9);
        let mut aggregate = Aggregate::new(3, buffers.clone());
        for replica in [0, 1, 2] {
            aggregate.add(&threads(1), ReplicaId(replica), tensors(replica));
        }
        aggregate.discard();
        let kept = [buffers.take(), buffers.take(), buffers.take()];
        assert!(kept.iter().all(|buffer| buffer[0] != 0.0));
        for replica in [2, 0, 1] {
            aggregate.add(&threads(1), ReplicaId(replica), tensors(0));
        }
        assert_eq!(aggregate.take().before.unwrap()[0], 2e8);
    }

    #[test]
    #[should_panic(expected = "a step commits whole")]
    fn an_incomplete_step_is_never_taken() {
        let mut aggregate = Aggregate::new(2, Buffers::new(LEN, 1));
        aggregate.add(&threads(1), ReplicaId(1), tensors(1));
        aggregate.take();
    }
}
