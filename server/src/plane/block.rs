//! The state of one chunk of the parameters, and the one pass over it that makes an update.

use std::sync::Arc;

use bytes::Bytes;
use hw2_common::config::Optimizer;
use hw2_common::wire::Checksum;
use hw2_proto::v1::{Chunk, Part};

use super::ema::Ema;
use super::optimizer::Adam;
use super::pool::{Buffer, Pool};
use crate::coordinator::Update;

/// Values between two looks at the checksum: all vectors' together fit a core's cache.
const STRIP: usize = 4096;

/// One chunk's range of every vector of the state. It never changes: an update makes a new one, so
/// that a step that is given up leaves no trace, and a snapshot costs nothing.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) weights: Buffer,
    pub(crate) moment1: Buffer,
    pub(crate) moment2: Buffer,
    pub(crate) ema: Buffer,
    /// CRC32C of the weights.
    checksum: u32,
}

impl Block {
    /// From the same range of each vector.
    pub(crate) fn new(weights: Buffer, moment1: Buffer, moment2: Buffer, ema: Buffer) -> Self {
        let checksum = checksum(&weights);
        Self { weights, moment1, moment2, ema, checksum }
    }

    /// The weights to be sent; `start` is their place in the vector.
    pub(crate) fn weights_chunk(self: &Arc<Self>, start: usize) -> Chunk {
        let values = Bytes::from_owner(Sent(Arc::clone(self), |block| &block.weights));
        let (part, start) = (Part::Weights.into(), start as u64);
        Chunk { part, start, crc32c: self.checksum, values }
    }

    /// The EMA likewise.
    pub(crate) fn ema_chunk(self: &Arc<Self>, start: usize) -> Chunk {
        let values = Bytes::from_owner(Sent(Arc::clone(self), |block| &block.ema));
        let (part, start) = (Part::Ema.into(), start as u64);
        Chunk { part, start, crc32c: checksum(&self.ema), values }
    }
}

fn checksum(values: &[f32]) -> u32 {
    let mut checksum = Checksum::default();
    checksum.update(values);
    checksum.finish()
}

/// A vector of a block that the transport holds.
struct Sent(Arc<Block>, fn(&Block) -> &Buffer);

impl AsRef<[u8]> for Sent {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice((self.1)(&self.0))
    }
}

/// A chunk of a gradient as it arrived, at any alignment, or of a sum of gradients.
#[derive(Debug)]
pub(crate) enum Addend {
    Received(Bytes),
    Sum(Buffer),
}

/// A value of an addend.
type Value = [u8; size_of::<f32>()];

impl Addend {
    fn values(&self) -> &[Value] {
        match self {
            Self::Received(bytes) => bytes.as_chunks().0,
            Self::Sum(values) => bytemuck::cast_slice(values),
        }
    }
}

/// The scalars of the pass that makes an update.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pass {
    replicas: f32,
    adam: Adam,
    ema: Ema,
}

/// The same strip of the old and the new state.
struct Strip<'a> {
    old: [&'a [f32]; 4],
    new: [&'a mut [f32]; 4],
}

impl Pass {
    /// The mean over `replicas` gradients, Adam, and EMA.
    pub(crate) fn new(optimizer: &Optimizer, update: Update, replicas: u32) -> Self {
        Self {
            replicas: replicas as f32,
            adam: Adam::new(optimizer, update.learning_rate, update.number),
            ema: Ema::new(optimizer.ema_decay_max, update.number),
        }
    }

    /// The block after the update by the sum of `addends`, which are added in their order. Every value
    /// is read and written once, and the checksum of the new weights is made while they are in the
    /// cache. All arithmetic is by element, so that strips do not show in the bits.
    pub(crate) fn run(&self, block: &Block, addends: &[Arc<Addend>], pool: &Pool) -> Block {
        let len = block.weights.len();
        let [mut weights, mut moment1, mut moment2, mut ema] = [(); 4].map(|()| pool.take(len));
        let mut before = [0.0; STRIP];
        let (last, first) = addends.split_last().expect("a step has one replica at least");
        let mut checksum = Checksum::default();
        for start in (0..len).step_by(STRIP) {
            let range = start..(start + STRIP).min(len);
            let strip = Strip {
                old: [&block.weights, &block.moment1, &block.moment2, &block.ema]
                    .map(|vector| &vector[range.clone()]),
                new: [&mut weights, &mut moment1, &mut moment2, &mut ema]
                    .map(|vector| &mut vector[range.clone()]),
            };
            let last = &last.values()[range.clone()];
            match first.split_first() {
                None => self.update(strip, last, |_, last| last),
                Some((first, others)) => {
                    let before = &mut before[..last.len()];
                    copy(before, &first.values()[range.clone()]);
                    others.iter().for_each(|other| add(before, &other.values()[range.clone()]));
                    self.update(strip, last, |i, last| (before[i] + last) / self.replicas);
                }
            }
            checksum.update(&weights[range]);
        }
        Block { weights, moment1, moment2, ema, checksum: checksum.finish() }
    }

    #[inline(always)]
    fn update(&self, strip: Strip<'_>, last: &[Value], mean: impl Fn(usize, f32) -> f32) {
        let len = last.len();
        // One length for all, so that the loop needs no bounds checks and is vectorised.
        let [old, old_m, old_v, old_ema] = strip.old.map(|vector| &vector[..len]);
        let [new, new_m, new_v, new_ema] = strip.new.map(|vector| &mut vector[..len]);
        for i in 0..len {
            let (mut m, mut v) = (old_m[i], old_v[i]);
            new[i] = self.adam.step(old[i], mean(i, f32::from_le_bytes(last[i])), &mut m, &mut v);
            (new_m[i], new_v[i]) = (m, v);
            new_ema[i] = self.ema.step(old_ema[i], new[i]);
        }
    }
}

fn copy(to: &mut [f32], from: &[Value]) {
    bytemuck::cast_slice_mut(to).copy_from_slice(from);
}

/// Adds `other` to `sum`, element by element.
fn add(sum: &mut [f32], other: &[Value]) {
    for (a, b) in sum.iter_mut().zip(other) {
        *a += f32::from_le_bytes(*b);
    }
}

/// The sum of two, in new memory.
pub(crate) fn sum(a: &Addend, b: &Addend, pool: &Pool) -> Buffer {
    let mut sum = pool.take(a.values().len());
    copy(&mut sum, a.values());
    add(&mut sum, b.values());
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use hw2_common::wire;

    const LEN: usize = 2 * STRIP + 5;
    const UPDATE: Update = Update { number: 7, learning_rate: 1e-3 };

    fn vector(scale: f32) -> Vec<f32> {
        (0..LEN).map(|i| scale * ((i % 97) as f32 - 48.0)).collect()
    }

    /// As a frame holds it: behind other bytes.
    fn received(values: &[f32]) -> Addend {
        let bytes = [&[0], bytemuck::cast_slice(values)].concat();
        Addend::Received(Bytes::from(bytes).slice(1..))
    }

    fn block(pool: &Pool) -> Block {
        let moment2: Vec<f32> = vector(0.002).iter().map(|v| v.abs()).collect();
        let [weights, moment1, ema] = [0.01, 0.001, 0.02].map(|scale| pool.copy_of(&vector(scale)));
        Block::new(weights, moment1, pool.copy_of(&moment2), ema)
    }

    #[test]
    fn an_update_is_mean_adam_and_ema_of_every_value() {
        let (pool, optimizer) = (Pool::default(), Optimizer::default());
        for scales in [vec![0.1], vec![0.3, 0.1], vec![0.3, -7.0, 0.1]] {
            let gradients: Vec<_> = scales.iter().map(|scale| vector(*scale)).collect();
            let addends: Vec<_> = gradients.iter().map(|it| Arc::new(received(it))).collect();
            let pass = Pass::new(&optimizer, UPDATE, scales.len() as u32);
            let old = block(&pool);
            let new = pass.run(&old, &addends, &pool);
            let adam = Adam::new(&optimizer, UPDATE.learning_rate, UPDATE.number);
            let ema = Ema::new(optimizer.ema_decay_max, UPDATE.number);
            for i in 0..LEN {
                let others = gradients[1..].iter();
                let sum = others.fold(gradients[0][i], |sum, gradient| sum + gradient[i]);
                let (mut m, mut v) = (old.moment1[i], old.moment2[i]);
                let mean = sum / scales.len() as f32;
                let weight = adam.step(old.weights[i], mean, &mut m, &mut v);
                assert_eq!(new.weights[i], weight);
                assert_eq!((new.moment1[i], new.moment2[i]), (m, v));
                assert_eq!(new.ema[i], ema.step(old.ema[i], weight));
            }
            assert_eq!(new.checksum, checksum(&new.weights));
        }
    }

    #[test]
    fn a_sum_is_by_element() {
        let pool = Pool::default();
        let first = sum(&received(&[1.0, 2.0]), &received(&[0.5, -2.0]), &pool);
        assert_eq!(*first, [1.5, 0.0]);
        let second = sum(&Addend::Sum(first), &received(&[1.0, 1.0]), &pool);
        assert_eq!(*second, [2.5, 1.0]);
    }

    #[test]
    fn chunks_are_what_the_wire_expects() {
        let block = Arc::new(block(&Pool::default()));
        let flat = |vector: &Buffer| Arc::new(vector.to_vec());
        let weights = wire::chunks(Part::Weights, 0, &flat(&block.weights)).next().unwrap();
        assert_eq!(block.weights_chunk(0), weights);
        let ema = wire::chunks(Part::Ema, 3, &flat(&block.ema)).next().unwrap();
        assert_eq!(block.ema_chunk(3), ema);
    }
}
