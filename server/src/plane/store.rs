//! The vectors of the run, and the one pass over them that makes an update.

use std::sync::Arc;

use hw2_common::config::Optimizer;
use hw2_common::state::{Flat, Vectors};
use hw2_common::wire::{self, CHUNK_VALUES};
use rayon::ThreadPool;
use rayon::prelude::*;

use super::aggregate::Whole;
use super::buffers::Buffers;
use super::ema::Ema;
use super::optimizer::Adam;
use crate::coordinator::Update;

/// Values between two looks at the checksum: all vectors' together fit a core's cache.
const STRIP: usize = CHUNK_VALUES / 9;

/// The vectors of the run.
pub(crate) struct Store {
    vectors: Vectors,
    /// Of the chunks of the weights, as they will be sent.
    checksums: Vec<u32>,
    /// The weights before the last update. Their memory is used again once nobody reads it.
    retired: Option<Flat>,
    buffers: Buffers,
}

impl Store {
    /// Gradients that an update used up go back to `buffers`.
    pub(crate) fn new(vectors: Vectors, buffers: Buffers) -> Self {
        Self { checksums: wire::checksums(&vectors.weights), vectors, retired: None, buffers }
    }

    /// The vectors as they are, shared with the store until the next update.
    pub(crate) fn vectors(&self) -> &Vectors {
        &self.vectors
    }

    /// The CRC32C of each chunk of the weights.
    pub(crate) fn checksums(&self) -> &[u32] {
        &self.checksums
    }

    /// Makes one update. All arithmetic is by element, so that threads and strips do not show in
    /// the bits.
    pub(crate) fn update(
        &mut self,
        threads: &ThreadPool,
        optimizer: &Optimizer,
        update: Update,
        replicas: u32,
        whole: Whole,
    ) {
        let Vectors { weights, moment1, moment2, ema, buffers } = &mut self.vectors;
        let pass = Pass {
            replicas: replicas as f32,
            adam: Adam::new(optimizer, update.learning_rate, update.number),
            ema: Ema::new(optimizer.ema_decay_max, update.number),
        };
        let free = self.retired.take().and_then(|flat| Arc::try_unwrap(flat).ok());
        let mut new = free.unwrap_or_else(|| vec![0.0; weights.len()]);
        let chunks = chunks(&whole, weights, &mut new, [moment1, moment2, ema]);
        let update = || chunks.into_par_iter().map(|chunk| pass.run(chunk)).collect();
        self.checksums = threads.install(update);
        self.retired = Some(std::mem::replace(weights, Arc::new(new)));
        let momentum = optimizer.bn_momentum as f32;
        for (running, sum) in Arc::make_mut(buffers).iter_mut().zip(&whole.statistics) {
            *running += momentum * (sum / pass.replicas - *running);
        }
        self.buffers.give(whole.last);
        whole.before.into_iter().for_each(|sum| self.buffers.give(sum));
    }
}

/// The scalars of the pass that makes an update.
struct Pass {
    replicas: f32,
    adam: Adam,
    ema: Ema,
}

/// The same range of every vector.
struct Slices<'a> {
    /// Sum of the gradients before the last.
    before: Option<&'a [f32]>,
    last: &'a [f32],
    old: &'a [f32],
    new: &'a mut [f32],
    m: &'a mut [f32],
    v: &'a mut [f32],
    ema: &'a mut [f32],
}

/// Cuts all vectors as the weights are cut to be sent.
fn chunks<'a>(
    whole: &'a Whole,
    old: &'a [f32],
    new: &'a mut [f32],
    in_place: [&'a mut Flat; 3],
) -> Vec<Slices<'a>> {
    let [m, v, ema] = in_place.map(|flat| Arc::make_mut(flat).as_mut_slice());
    let before = whole.before.as_deref();
    Slices { before, last: &whole.last, old, new, m, v, ema }.cut(CHUNK_VALUES).collect()
}

impl<'a> Slices<'a> {
    /// Cuts all vectors alike.
    fn cut(self, len: usize) -> impl Iterator<Item = Self> {
        let Self { before, last, old, new, m, v, ema } = self;
        let mut before = before.map(|sum| sum.chunks(len));
        let mut new = new.chunks_mut(len);
        let mut in_place = [m, v, ema].map(|vector| vector.chunks_mut(len));
        let same = "all vectors have the length of the parameters";
        last.chunks(len).zip(old.chunks(len)).map(move |(last, old)| {
            let [m, v, ema] = in_place.each_mut().map(|vector| vector.next().expect(same));
            let before = before.as_mut().map(|sum| sum.next().expect(same));
            Self { before, last, old, new: new.next().expect(same), m, v, ema }
        })
    }
}

impl Pass {
    /// Updates one chunk, reading and writing every value once; the checksum of its new weights is
    /// made while they are in the cache.
    fn run(&self, chunk: Slices<'_>) -> u32 {
        chunk.cut(STRIP).fold(0, |checksum, strip| wire::append(checksum, self.update(strip)))
    }

    /// Mean, Adam and EMA; returns the new weights.
    fn update<'a>(&self, strip: Slices<'a>) -> &'a [f32] {
        match strip.before {
            None => self.over(strip, |_, last| last),
            Some(before) => self.over(strip, |i, last| (before[i] + last) / self.replicas),
        }
    }

    #[inline(always)]
    fn over<'a>(&self, strip: Slices<'a>, mean: impl Fn(usize, f32) -> f32) -> &'a [f32] {
        let Slices { last, old, new, m, v, ema, .. } = strip;
        let len = last.len();
        // One length for all, so that the loop needs no bounds checks and is vectorised.
        let (old, new) = (&old[..len], &mut new[..len]);
        let (m, v, ema) = (&mut m[..len], &mut v[..len], &mut ema[..len]);
        for i in 0..len {
            new[i] = self.adam.step(old[i], mean(i, last[i]), &mut m[i], &mut v[i]);
            ema[i] = self.ema.step(ema[i], new[i]);
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plane::threads;

    const LEN: usize = CHUNK_VALUES + 2 * STRIP + 5;

    fn vector(scale: f32) -> Vec<f32> {
        (0..LEN).map(|i| scale * ((i % 97) as f32 - 48.0)).collect()
    }

    fn vectors() -> Vectors {
        Vectors {
            weights: Arc::new(vector(0.01)),
            moment1: Arc::new(vector(0.001)),
            moment2: Arc::new(vector(0.002).iter().map(|v| v.abs()).collect()),
            ema: Arc::new(vector(0.02)),
            buffers: Arc::new(vec![1.0, 2.0]),
        }
    }

    fn store() -> Store {
        Store::new(vectors(), Buffers::new(LEN, 4))
    }

    fn whole(replicas: u32) -> Whole {
        let before = (replicas > 1).then(|| vector(0.3));
        Whole { before, last: vector(0.1), statistics: vec![4.0, 4.0] }
    }

    const UPDATE: Update = Update { number: 7, learning_rate: 1e-3 };

    #[test]
    fn an_update_is_mean_adam_and_ema_of_every_value() {
        for replicas in [1, 3] {
            let optimizer = Optimizer::default();
            let mut store = store();
            store.update(&threads(2), &optimizer, UPDATE, replicas, whole(replicas));
            let (old, new) = (vectors(), store.vectors());
            let (before, last) = (vector(0.3), vector(0.1));
            let adam = Adam::new(&optimizer, UPDATE.learning_rate, UPDATE.number);
            let ema = Ema::new(optimizer.ema_decay_max, UPDATE.number);
            for i in 0..LEN {
                let gradient = match replicas {
                    1 => last[i],
                    _ => (before[i] + last[i]) / replicas as f32,
                };
                let (mut m, mut v) = (old.moment1[i], old.moment2[i]);
                let weight = adam.step(old.weights[i], gradient, &mut m, &mut v);
                assert_eq!(new.weights[i], weight);
                assert_eq!((new.moment1[i], new.moment2[i]), (m, v));
                assert_eq!(new.ema[i], ema.step(old.ema[i], weight));
            }
            assert_eq!(store.checksums(), wire::checksums(&new.weights));
            let mean = 4.0 / replicas as f32;
            assert_eq!(*new.buffers, [1.0 + 0.05 * (mean - 1.0), 2.0 + 0.05 * (mean - 2.0)]);
        }
    }

    #[test]
    fn threads_do_not_show_in_the_bits() {
        let after = |count| {
            let mut store = store();
            store.update(&threads(count), &Optimizer::default(), UPDATE, 3, whole(3));
            store.vectors().clone()
        };
        assert_eq!(after(1), after(2));
        assert_eq!(after(1), after(7));
    }

    #[test]
    fn a_snapshot_keeps_its_values_and_memory_is_used_again() {
        let mut store = store();
        let threads = threads(1);
        let snapshot = store.vectors().clone();
        for number in 1..=3 {
            let update = Update { number, learning_rate: 1e-3 };
            store.update(&threads, &Optimizer::default(), update, 1, whole(1));
        }
        assert_eq!(snapshot, vectors());
        let (first, second) = (store.vectors.weights.as_ptr(), store.retired.clone().unwrap());
        drop(second);
        store.update(&threads, &Optimizer::default(), UPDATE, 1, whole(1));
        assert_eq!(store.retired.as_ref().unwrap().as_ptr(), first);
        store.update(&threads, &Optimizer::default(), UPDATE, 1, whole(1));
        assert_eq!(store.vectors.weights.as_ptr(), first);
    }
}
