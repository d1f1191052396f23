//! The weights of one chunk of the parameters, and the pass over it that makes an update.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use hw2_common::config::{Config, WireFormat};
use hw2_common::wire::{self, Checksum, Values};
use hw2_proto::v1::{Chunk, VectorKind};

use super::addend::{Addend, Operand, Value};
use super::ahead::Ahead;
use super::averages::Averages;
use super::ema::Ema;
use super::optimizer::Adam;
use super::pool::{Buffer, Pool};
use crate::coordinator::Update;

/// Values between two looks at the checksum: all vectors' together fit a core's cache.
pub(super) const STRIP: usize = 2048;
/// Values between two looks ahead. All lines of the next strip at once are slower than none: a core can
/// wait for few at a time.
const STRETCH: usize = 64;
/// How far ahead: long enough for the lines to come, and so near that they are still in the first cache.
const LEAD: usize = 512;

/// One chunk's range of the weights. It never changes: an update makes a new one, so that a step
/// that is given up leaves no trace.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) weights: Arc<Buffer>,
    /// The same as they are sent, if that is not as they are: bytes, in memory for numbers.
    rounded: Option<Arc<Buffer>>,
    /// CRC32C of the weights as they are sent.
    checksum: u32,
    /// The update that made the weights, which the averages of the chunk may not have taken in yet.
    /// None at the start.
    pub(super) update: Option<Made>,
}

/// An update that was made.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) pass: Pass,
    /// The mean over the replicas.
    pub(super) gradient: Arc<Addend>,
}

impl Block {
    /// With which a server begins whose weights travel in `wire`.
    pub(crate) fn new(weights: Buffer, wire: WireFormat, pool: &Pool) -> Self {
        let mut sending = Sending::new(weights.len(), wire, pool);
        sending.add(0, &weights);
        sending.block(weights, None)
    }

    /// The weights to be sent; `start` is their place in the vector.
    pub(crate) fn weights_chunk(&self, start: usize) -> Chunk {
        let values = match &self.rounded {
            None => Bytes::from_owner(Sent(Arc::clone(&self.weights))),
            Some(rounded) => {
                let bytes = self.weights.len() * WireFormat::Bf16.bytes();
                Bytes::from_owner(Sent(Arc::clone(rounded))).slice(..bytes)
            }
        };
        Chunk {
            kind: VectorKind::Weights.into(),
            start: start as u64,
            crc32c: self.checksum,
            values,
        }
    }
}

/// New weights on their way into a block.
struct Sending {
    rounded: Option<Buffer>,
    checksum: Checksum,
}

impl Sending {
    fn new(len: usize, wire: WireFormat, pool: &Pool) -> Self {
        let rounded = match wire {
            WireFormat::F32 => None,
            WireFormat::Bf16 => Some(pool.take((len * wire.bytes()).div_ceil(size_of::<f32>()))),
        };
        Self { rounded, checksum: Checksum::default() }
    }

    /// Where they are written, if not as they are.
    fn values(&self) -> Option<Values<'_>> {
        let rounded = bytemuck::cast_slice(self.rounded.as_deref()?);
        Some(Values::new(rounded, WireFormat::Bf16))
    }

    /// Those from number `start` on follow.
    fn add(&mut self, start: usize, weights: &[f32]) {
        let Some(rounded) = &mut self.rounded else {
            return self.checksum.update(bytemuck::cast_slice(weights));
        };
        let format = WireFormat::Bf16;
        let (start, len) = (start * format.bytes(), weights.len() * format.bytes());
        let bytes = &mut bytemuck::cast_slice_mut(rounded)[start..start + len];
        widest(
            #[inline(always)]
            || wire::encode(weights, bytes, format),
        );
        self.checksum.update(bytes);
    }

    fn block(self, weights: Buffer, update: Option<Made>) -> Block {
        let (rounded, checksum) = (self.rounded.map(Arc::new), self.checksum.finish());
        Block { weights: Arc::new(weights), rounded, checksum, update }
    }
}

/// Weights that the transport holds.
struct Sent(Arc<Buffer>);

impl AsRef<[u8]> for Sent {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

/// The scalars of the pass that makes an update.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pass {
    /// Of the update, counted from 1.
    pub(super) number: u64,
    replicas: u32,
    wire: WireFormat,
    pub(super) adam: Adam,
    pub(super) ema: Ema,
}

impl Pass {
    /// The mean over the replicas' gradients, Adam, and EMA, as `config` says.
    pub(crate) fn new(config: &Config, update: Update) -> Self {
        let Config { optimizer, replicas, wire, .. } = config;
        Self {
            number: update.number,
            replicas: *replicas,
            wire: *wire,
            adam: Adam::new(optimizer, update.learning_rate, update.number),
            ema: Ema::new(optimizer.ema_decay_max, update.number),
        }
    }

    /// The block after the update by the mean of `operands`, which are added in their order. The
    /// averages take the update in that made `block`, and not yet this one, which may come to
    /// nothing: so they change where they are, and no more than the weights is written anew. Every
    /// value passes through the cache once, and there the checksum of the new weights is made. All
    /// arithmetic is by element, so that strips do not show in the bits.
    pub(crate) fn run(
        &self,
        block: &Block,
        averages: &mut Averages,
        operands: &mut [Operand],
        pool: &Pool,
    ) -> Block {
        let len = block.weights.len();
        let mut weights = pool.take(len);
        // The mean of one gradient is that gradient, kept as it arrived.
        let (first, others) = operands.split_first_mut().expect("a step has one replica at least");
        let mut mean = (!others.is_empty()).then(|| pool.take(len));
        let mut sending = Sending::new(len, self.wire, pool);
        let mut rooms = [[0.0; STRIP]; 2];
        let due = averages.due(block);
        let mut ahead = Ahead::default();
        let Averages { moment1, moment2, ema, .. } = &*averages;
        let vectors = [&weights, &*block.weights, moment1, moment2, ema];
        vectors.into_iter().for_each(|vector| ahead.add(Values::of(vector), LEAD));
        // These are gone through a strip at once. What the mean is made of is not among them: a core that
        // has just received a gradient has it in its own cache, and to ask for it so gained nothing.
        let gradient = mean.as_deref().map_or_else(|| first.addend().values(), Values::of);
        let due_gradient = due.map(|due| due.gradient.values());
        let by_strips = [Some(gradient), due_gradient, sending.values()].into_iter().flatten();
        by_strips.for_each(|values| ahead.add(values, STRIP));
        for range in strips(len) {
            let [room, due_room] = &mut rooms;
            let gradient = match &mut mean {
                None => first.next_strip(range.clone(), room),
                Some(mean) => {
                    let mean = &mut mean[range.clone()];
                    copy(mean, first.next(range.clone()));
                    others.iter_mut().for_each(|other| add(mean, other.next(range.clone())));
                    divide(mean, self.replicas);
                    bytemuck::cast_slice(mean)
                }
            };
            let new = &mut weights[range.clone()];
            let old = &block.weights[range.clone()];
            let due = due.map(|due| (&due.pass, due.gradient.strip(range.clone(), due_room)));
            let averages = averages.strip(range.clone());
            widest(
                #[inline(always)]
                || {
                    self.update(new, old, averages, gradient, due, |at| {
                        ahead.fetch(range.start + at, STRETCH);
                    })
                },
            );
            sending.add(range.start, new);
        }
        if let Some(due) = due {
            averages.update = due.pass.number;
        }
        let gradient = mean
            .map_or_else(|| Arc::clone(first.addend()), |mean| Arc::new(Addend::Computed(mean)));
        sending.block(weights, Some(Made { pass: *self, gradient }))
    }

    /// Writes the new weights, some at a time. If `due`, the update that made the old ones, with its mean
    /// gradient, is not in moments and EMA yet, each element takes it in first, so that memory is read
    /// once for both. Before those from each number on it calls `before`.
    #[inline(always)]
    fn update(
        &self,
        new: &mut [f32],
        old: &[f32],
        averages: [&mut [f32]; 3],
        gradient: &[Value],
        due: Option<(&Self, &[Value])>,
        before: impl Fn(usize),
    ) {
        let [m, v, ema] = averages;
        for start in (0..new.len()).step_by(STRETCH) {
            before(start);
            let range = start..(start + STRETCH).min(new.len());
            let len = range.len();
            // One length for all, so that the loops need no bounds checks and are vectorised.
            let (new, old) = (&mut new[range.clone()][..len], &old[range.clone()][..len]);
            let gradient = &gradient[range.clone()][..len];
            let [m, v, ema] =
                [&mut *m, &mut *v, &mut *ema].map(|average| &mut average[range.clone()][..len]);
            match due {
                Some((due, due_gradient)) => {
                    let due_gradient = &due_gradient[range][..len];
                    for i in 0..len {
                        due.average(due_gradient[i], old[i], [&mut m[i], &mut v[i], &mut ema[i]]);
                        new[i] = self.step(gradient[i], old[i], m[i], v[i]);
                    }
                }
                None => {
                    for i in 0..len {
                        new[i] = self.step(gradient[i], old[i], m[i], v[i]);
                    }
                }
            }
        }
    }

    /// Moments and EMA become those of this update, which made `weight`.
    #[inline(always)]
    pub(super) fn average(&self, gradient: Value, weight: f32, averages: [&mut f32; 3]) {
        let [m, v, ema] = averages;
        self.adam.average(f32::from_le_bytes(gradient), m, v);
        *ema = self.ema.step(*ema, weight);
    }

    /// The new weight, from the moments before this update.
    #[inline(always)]
    fn step(&self, gradient: Value, weight: f32, mut m: f32, mut v: f32) -> f32 {
        self.adam.average(f32::from_le_bytes(gradient), &mut m, &mut v);
        self.adam.step(weight, m, v)
    }
}

/// Computes with the widest vectors that this CPU has. The bits are those of any CPU: an operation
/// by element gives one result at every width, and none is fused. `loops` must be `inline(always)`:
/// what is called is not compiled for them.
pub(super) fn widest<R>(loops: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(loops)
}

/// The ranges of the strips of a chunk.
pub(super) fn strips(len: usize) -> impl Iterator<Item = Range<usize>> {
    (0..len).step_by(STRIP).map(move |start| start..(start + STRIP).min(len))
}

fn copy(to: &mut [f32], from: Values<'_>) {
    widest(
        #[inline(always)]
        || from.copy_to(to),
    );
}

/// Adds `other` to `sum`, element by element.
fn add(sum: &mut [f32], other: Values<'_>) {
    widest(
        #[inline(always)]
        || other.add_to(sum),
    );
}

/// Divides all of `sum`. By a power of two it multiplies with the inverse, which is faster and has
/// the same bits: both are the exact quotient, rounded once.
fn divide(sum: &mut [f32], divisor: u32) {
    let (by, inverse) = (divisor as f32, 1.0 / divisor as f32);
    widest(
        #[inline(always)]
        || match divisor.is_power_of_two() {
            true => sum.iter_mut().for_each(|value| *value *= inverse),
            false => sum.iter_mut().for_each(|value| *value /= by),
        },
    );
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
    use crate::plane::addend::Ticket;
    use crate::plane::averages::ema_chunk;
    use hw2_common::config::Optimizer;

    const LEN: usize = 2 * STRIP + 5;

    fn vector(scale: f32) -> Vec<f32> {
        (0..LEN).map(|i| scale * ((i % 97) as f32 - 48.0)).collect()
    }

    /// As a frame holds it: behind other bytes.
    fn received(values: &[f32], wire: WireFormat) -> Addend {
        let mut bytes = vec![0; 1 + values.len() * wire.bytes()];
        wire::encode(values, &mut bytes[1..], wire);
        let mut checksum = Checksum::default();
        checksum.update(&bytes[1..]);
        let crc32c = checksum.finish();
        let values = Bytes::from(bytes).slice(1..);
        let kind = VectorKind::Gradient.into();
        Addend::Received(Chunk { kind, start: 0, crc32c, values }, wire)
    }

    /// What arrives of `values`.
    fn rounded(values: &[f32], wire: WireFormat) -> Vec<f32> {
        let mut rounded = vec![0.0; values.len()];
        received(values, wire).values().copy_to(&mut rounded);
        rounded
    }

    /// A chunk's state, and its values: weights, moments, EMA.
    fn state(pool: &Pool, wire: WireFormat) -> (Block, Averages, [Vec<f32>; 4]) {
        let moment2 = vector(0.002).iter().map(|v| v.abs()).collect();
        let all = [vector(0.01), vector(0.001), moment2, vector(0.02)];
        let [weights, moment1, moment2, ema] = all.each_ref().map(|values| pool.copy_of(values));
        let block = Block::new(weights, wire, pool);
        (block, Averages::new(moment1, moment2, ema), all)
    }

    fn pass(replicas: u32, update: Update, wire: WireFormat) -> Pass {
        Pass::new(&Config { replicas, wire, ..Config::default() }, update)
    }

    /// An update as [`Adam`] and [`Ema`] have it.
    fn expected([w, m, v, e]: &mut [Vec<f32>; 4], gradients: &[Vec<f32>], update: Update) {
        let optimizer = Optimizer::default();
        let adam = Adam::new(&optimizer, update.learning_rate, update.number);
        let ema = Ema::new(optimizer.ema_decay_max, update.number);
        for i in 0..LEN {
            let others = gradients[1..].iter();
            let sum = others.fold(gradients[0][i], |sum, gradient| sum + gradient[i]);
            adam.average(sum / gradients.len() as f32, &mut m[i], &mut v[i]);
            w[i] = adam.step(w[i], m[i], v[i]);
            e[i] = ema.step(e[i], w[i]);
        }
    }

    fn updates_are_mean_adam_and_ema(wire: WireFormat) {
        let pool = Pool::default();
        for scales in [vec![0.1], vec![0.3, 0.1], vec![0.3, -7.0, 0.1]] {
            let gradients: Vec<_> =
                scales.iter().map(|scale| rounded(&vector(*scale), wire)).collect();
            let addends: Vec<_> = gradients.iter().map(|it| Arc::new(received(it, wire))).collect();
            let (mut block, mut averages, mut values) = state(&pool, wire);
            for number in 7..10 {
                let update = Update { number, learning_rate: 1e-3 };
                let pass = pass(scales.len() as u32, update, wire);
                let other = Operand::known(Arc::new(received(&values[0], wire)));
                let given_up = pass.run(&block, &mut averages, &mut [other], &pool);
                let unknown = |addend| Operand::unknown(Arc::clone(addend), Ticket(1));
                let mut operands: Vec<_> = addends.iter().map(unknown).collect();
                block = pass.run(&block, &mut averages, &mut operands, &pool);
                let verdicts = operands.into_iter().map(|operand| operand.verdict().unwrap());
                verdicts.for_each(|verdict| assert_eq!(verdict.result, Ok(())));
                assert_ne!(**given_up.weights, **block.weights);
                assert_eq!(averages.update, if number == 7 { 0 } else { number - 1 });
                expected(&mut values, &gradients, update);
                assert_eq!(**block.weights, values[0], "the server's are exact");
                let sent = block.weights_chunk(0);
                let mut arrived = vec![0.0; LEN];
                Values::new(&sent.values, wire).copy_to(&mut arrived);
                assert_eq!(arrived, rounded(&values[0], wire));
                let mut checksum = Checksum::default();
                checksum.update(&sent.values);
                assert_eq!(sent.crc32c, checksum.finish());
            }
            averages.settle(&block);
            averages.settle(&block);
            let Averages { moment1, moment2, ema, .. } = &averages;
            assert_eq!([moment1, moment2, ema].map(|it| it.to_vec()), values[1..]);
        }
    }

    #[test]
    fn updates_are_mean_adam_and_ema_of_every_value() {
        updates_are_mean_adam_and_ema(WireFormat::F32);
        updates_are_mean_adam_and_ema(WireFormat::Bf16);
    }

    #[test]
    fn a_sum_is_by_element() {
        let pool = Pool::default();
        for wire in [WireFormat::F32, WireFormat::Bf16] {
            let first = sum(&received(&[1.0, 2.0], wire), &received(&[0.5, -2.0], wire), &pool);
            assert_eq!(*first, [1.5, 0.0]);
            let second = sum(&Addend::Computed(first), &received(&[1.0, 1.0], wire), &pool);
            assert_eq!(*second, [2.5, 1.0]);
        }
    }

    #[test]
    fn every_divisor_gives_the_quotient() {
        let values: Vec<f32> = [f32::MIN_POSITIVE, 1e-42, 0.1, -7.3, f32::MAX].to_vec();
        for divisor in 1..=16 {
            let mut quotients = values.clone();
            divide(&mut quotients, divisor);
            let expected: Vec<f32> = values.iter().map(|value| value / divisor as f32).collect();
            assert_eq!(quotients, expected, "{divisor}");
        }
    }

    #[test]
    fn chunks_are_what_the_wire_expects() {
        let (block, averages, [weights, .., ema]) = state(&Pool::default(), WireFormat::F32);
        let sent = |kind, start, values: Vec<f32>| {
            let checksums = wire::checksums(&values);
            wire::chunks(kind, start, &Arc::new(values), &checksums).next()
        };
        assert_eq!(sent(VectorKind::Weights, 0, weights), Some(block.weights_chunk(0)));
        let averages = Arc::new(averages);
        assert_eq!(sent(VectorKind::Ema, 3, ema), Some(ema_chunk(&averages, 3)));
    }
}
