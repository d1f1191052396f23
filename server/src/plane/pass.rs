//! The pass over a chunk of the state that makes an update.

use std::ops::Range;
use std::sync::Arc;

use hw2_common::config::{Config, WireFormat};

use super::addend::{Operand, Tile, Value};
use super::ahead;
use super::block::{Block, Sending};
use super::ema::{Average, Ema};
use super::optimizer::Adam;
use super::past::Past;
use super::pool::Pool;
use super::strips::{STRETCH, TILE, stretches, strips, tiles, widest};
use crate::coordinator::Update;

/// How far ahead: long enough for the lines to come, and so near that they are still in the first
/// cache.
const LEAD: usize = 256;

/// The scalars of the pass that makes an update.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pass {
    replicas: u32,
    wire: WireFormat,
    adam: Adam,
    ema: Ema,
}

/// Some numbers of what an update reads: of the block before it, and the mean gradient.
#[derive(Clone, Copy)]
struct Read<'a> {
    weights: &'a [f32],
    moment1: &'a [f32],
    moment2: &'a [f32],
    /// With the update that it lacks, if it takes that one in with this.
    ema: Option<(Ema, &'a [f32])>,
    gradient: &'a [Value],
}

/// What an update writes. Until the next one, only a checkpoint or an evaluation reads more of it
/// than the weights.
struct Written {
    weights: Sending,
    moment1: Past,
    moment2: Past,
    /// If it takes this update in.
    ema: Option<Past>,
}

/// Where a stretch of weights, moments and EMA is made that does not stay there.
type Rooms = [[f32; STRETCH]; 4];

impl Pass {
    /// The mean over the replicas' gradients, Adam, and EMA, as `config` says.
    pub(crate) fn new(config: &Config, update: Update) -> Self {
        let Config { optimizer, replicas, wire, .. } = config;
        Self {
            replicas: *replicas,
            wire: *wire,
            adam: Adam::new(optimizer, update.learning_rate, update.number),
            ema: Ema::new(optimizer.ema_decay_max, update.number),
        }
    }

    /// The block after the update by the mean of `operands`, which are added in their order: each
    /// is a replica's, or the sum of the first. Every value passes through the cache once, and
    /// there the checksum of the new weights is made, which are sent next. All arithmetic is by
    /// element, so that strips do not show in the bits.
    pub(crate) fn run(&self, block: &Block, operands: &mut [Operand], pool: &Pool) -> Block {
        let replicas = self.replicas;
        assert_eq!(operands.len() == 1, replicas == 1, "gradients of {replicas} replicas");
        let len = block.weights.len();
        let mut new = Written::new(block, self.wire, pool);
        let mut room = [0.0; TILE];
        let mut rooms = [[0.0; STRETCH]; 4];
        for strip in strips(len) {
            operands.iter_mut().for_each(|operand| operand.add_to_checksum(strip.clone()));
            widest(
                #[inline(always)]
                || {
                    for tile in tiles(strip.clone()) {
                        let gradient = self.mean(operands, tile.clone(), &mut room);
                        let read = Read::new(block, tile.clone(), gradient);
                        self.update(&mut new, tile, read, &mut rooms);
                    }
                },
            );
            new.weights.add_to_checksum(strip);
        }
        let Written { weights, moment1, moment2, ema } = new;
        let ema = match ema {
            Some(ema) => Average::whole(ema.finish()),
            None => Average { values: Arc::clone(&block.ema.values), lacks: Some(self.ema) },
        };
        weights.block([moment1.finish(), moment2.finish()], ema)
    }

    /// The mean over the replicas of some numbers of `operands`: where the only one is, or in
    /// `room`.
    #[inline(always)]
    fn mean<'a>(
        &self,
        operands: &'a mut [Operand],
        range: Range<usize>,
        room: &'a mut Tile,
    ) -> &'a [Value] {
        for operand in &*operands {
            operand.ahead(range.clone());
        }
        let (first, others) = operands.split_first_mut().expect("a step has one replica at least");
        if others.is_empty() {
            return first.tile(range, room);
        }
        let mean = &mut room[..range.len()];
        first.values(range.clone()).copy_to(mean);
        // Not `for_each`: so large a closure is not inlined, and so not compiled for the widest
        // vectors.
        for other in others {
            other.values(range.clone()).add_to(mean);
        }
        divide(mean, self.replicas);
        bytemuck::cast_slice(mean)
    }

    /// Writes what is new of a tile, a stretch at a time.
    #[inline(always)]
    fn update(&self, new: &mut Written, tile: Range<usize>, read: Read<'_>, rooms: &mut Rooms) {
        for range in stretches(tile.clone()) {
            let read = read.range(range.start - tile.start..range.end - tile.start);
            read.ahead();
            new.weights.ahead(range.start, LEAD);
            let [room, m, v, ema] = rooms.each_mut().map(|room| &mut room[..range.len()]);
            let weights = new.weights.place(range.clone(), room);
            self.stretch(weights, m, v, ema, read);
            new.weights.written(range, room);
            new.moment1.write(m);
            new.moment2.write(v);
            if let Some(new) = &mut new.ema {
                new.write(ema);
            }
        }
    }

    /// A stretch of the new state. What is written comes in arguments of its own: of these, but not
    /// of what is in one, the compiler knows that they do not overlap, and need not look.
    #[inline(always)]
    fn stretch(
        &self,
        new: &mut [f32],
        m: &mut [f32],
        v: &mut [f32],
        ema: &mut [f32],
        read: Read<'_>,
    ) {
        // One length for all, so that the loops need no bounds checks and are vectorised.
        let len = new.len();
        let (m, v, ema) = (&mut m[..len], &mut v[..len], &mut ema[..len]);
        let Read { weights, moment1, moment2, ema: before, gradient } = read.range(0..len);
        for i in 0..len {
            (m[i], v[i]) = (moment1[i], moment2[i]);
            self.adam.average(f32::from_le_bytes(gradient[i]), &mut m[i], &mut v[i]);
            new[i] = self.adam.step(weights[i], m[i], v[i]);
        }
        if let Some((last, before)) = before {
            for i in 0..len {
                ema[i] = self.ema.step(last.step(before[i], weights[i]), new[i]);
            }
        }
    }
}

impl<'a> Read<'a> {
    #[inline(always)]
    fn new(block: &'a Block, range: Range<usize>, gradient: &'a [Value]) -> Self {
        let Block { weights, moment1, moment2, ema, .. } = block;
        let [weights, moment1, moment2] =
            [&**weights, moment1, moment2].map(|vector| &vector[range.clone()]);
        let ema = ema.lacks.map(|last| (last, &ema.values[range]));
        Self { weights, moment1, moment2, ema, gradient }
    }

    #[inline(always)]
    fn range(&self, range: Range<usize>) -> Self {
        let Self { weights, moment1, moment2, ema, gradient } = *self;
        let [weights, moment1, moment2] =
            [weights, moment1, moment2].map(|vector| &vector[range.clone()]);
        let ema = ema.map(|(last, ema)| (last, &ema[range.clone()]));
        Self { weights, moment1, moment2, ema, gradient: &gradient[range] }
    }

    /// Has what comes next fetched, but for the gradient, which the operands have fetched.
    #[inline(always)]
    fn ahead(&self) {
        let Self { weights, moment1, moment2, ema, .. } = *self;
        let state = [weights, moment1, moment2].into_iter().chain(ema.map(|(_, ema)| ema));
        state.for_each(|vector| ahead::fetch(vector, LEAD));
    }
}

impl Written {
    /// Of what comes after `block`.
    fn new(block: &Block, wire: WireFormat, pool: &Pool) -> Self {
        let len = block.weights.len();
        let past = || Past::new(pool.take(len));
        Self {
            weights: Sending::new(len, wire, pool),
            moment1: past(),
            moment2: past(),
            ema: block.ema.lacks.is_some().then(past),
        }
    }
}

/// Divides all of `sum`. By a power of two it multiplies with the inverse, which is faster and has
/// the same bits: both are the exact quotient, rounded once.
#[inline(always)]
fn divide(sum: &mut [f32], divisor: u32) {
    let (by, inverse) = (divisor as f32, 1.0 / divisor as f32);
    match divisor.is_power_of_two() {
        true => sum.iter_mut().for_each(|value| *value *= inverse),
        false => sum.iter_mut().for_each(|value| *value /= by),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plane::addend::tests::received;
    use crate::plane::addend::{Addend, Fault, Ticket};
    use crate::plane::strips::STRIP;
    use hw2_common::config::Optimizer;
    use hw2_common::wire::{self, Checksum, Values};
    use hw2_proto::v1::VectorKind;

    /// The last of the strips, of its tiles, and of that one's stretches are all shorter than
    /// others.
    const LEN: usize = 2 * STRIP + TILE + STRETCH + 5;

    fn vector(scale: f32) -> Vec<f32> {
        (0..LEN).map(|i| scale * ((i % 97) as f32 - 48.0)).collect()
    }

    /// What arrives of `values`.
    fn rounded(values: &[f32], wire: WireFormat) -> Vec<f32> {
        let mut rounded = vec![0.0; values.len()];
        received(values, wire).values().copy_to(&mut rounded);
        rounded
    }

    /// A chunk's state, and its values: weights, moments, EMA.
    fn state(pool: &Pool, wire: WireFormat) -> (Block, [Vec<f32>; 4]) {
        let moment2 = vector(0.002).iter().map(|v| v.abs()).collect();
        let all = [vector(0.01), vector(0.001), moment2, vector(0.02)];
        let block = Block::new(all.each_ref().map(Vec::as_slice), wire, pool);
        (block, all)
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
            let (mut block, mut values) = state(&pool, wire);
            for number in 7..10 {
                let update = Update { number, learning_rate: 1e-3 };
                let pass = pass(scales.len() as u32, update, wire);
                let other = Operand::known(Arc::new(received(&values[0], wire)));
                let mut others: Vec<_> = addends.iter().cloned().map(Operand::known).collect();
                others[0] = other;
                let given_up = pass.run(&block, &mut others, &pool);
                let unknown = |addend| Operand::unknown(Arc::clone(addend), Ticket(1));
                let mut operands: Vec<_> = addends.iter().map(unknown).collect();
                block = pass.run(&block, &mut operands, &pool);
                let verdicts = operands.into_iter().map(|operand| operand.verdict().unwrap());
                verdicts.for_each(|verdict| assert_eq!(verdict.result, Ok(())));
                assert_ne!(**given_up.weights, **block.weights);
                expected(&mut values, &gradients, update);
                let Block { weights, moment1, moment2, ema, .. } = &block;
                let ema = ema.of(weights);
                let made = [&**weights, moment1, moment2, &*ema].map(|vector| vector.to_vec());
                assert_eq!(made, values, "the server's are exact");
                let sent = block.weights_chunk(0);
                let mut arrived = vec![0.0; LEN];
                Values::new(&sent.values, wire).copy_to(&mut arrived);
                assert_eq!(arrived, rounded(&values[0], wire));
                let mut checksum = Checksum::default();
                checksum.update(&sent.values);
                assert_eq!(sent.crc32c, checksum.finish());
            }
        }
    }

    #[test]
    fn updates_are_mean_adam_and_ema_of_every_value() {
        updates_are_mean_adam_and_ema(WireFormat::F32);
        updates_are_mean_adam_and_ema(WireFormat::Bf16);
    }

    /// What a pass over one gradient, or two, finds out about the last of them.
    fn verdict(gradient: Addend, others: usize, wire: WireFormat) -> Result<(), Fault> {
        let pool = Pool::default();
        let (block, _) = state(&pool, wire);
        let fine = Arc::new(received(&vector(0.1), wire));
        let known = (0..others).map(|_| Operand::known(Arc::clone(&fine)));
        let unknown = Operand::unknown(Arc::new(gradient), Ticket(1));
        let mut operands: Vec<_> = known.chain([unknown]).collect();
        let update = Update { number: 7, learning_rate: 1e-3 };
        pass(others as u32 + 1, update, wire).run(&block, &mut operands, &pool);
        operands.pop().unwrap().verdict().unwrap().result
    }

    #[test]
    fn a_bad_value_is_found_wherever_it_is() {
        for (wire, others) in
            [WireFormat::F32, WireFormat::Bf16].map(|it| [(it, 0), (it, 1)]).concat()
        {
            for index in [0, STRETCH, TILE - 1, TILE, STRIP - 1, STRIP, LEN - 6, LEN - 1] {
                let mut values = vector(0.1);
                values[index] = f32::INFINITY;
                let found = verdict(received(&values, wire), others, wire);
                assert_eq!(found, Err(Fault::Unfit { index, value: f32::INFINITY }));
                // It does not hide that the bytes are not those that were sent.
                let Addend::Received(mut chunk, _) = received(&values, wire) else { panic!() };
                chunk.crc32c ^= 1;
                let found = verdict(Addend::Received(chunk, wire), others, wire);
                assert!(matches!(found, Err(Fault::Corrupt(_))), "{found:?}");
            }
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
        let pool = Pool::default();
        let (block, mut values) = state(&pool, WireFormat::F32);
        let gradient = vector(0.1);
        let operand = || Operand::known(Arc::new(received(&gradient, WireFormat::F32)));
        let sent = |kind, start, values: Vec<f32>| {
            let checksums = wire::checksums(&values);
            wire::chunks(kind, start, &Arc::new(values), &checksums).next()
        };
        let mut blocks = vec![block];
        for number in 7..10 {
            let block = blocks.last().unwrap();
            let [weights, .., ema] = values.clone();
            assert_eq!(sent(VectorKind::Weights, 0, weights), Some(block.weights_chunk(0)));
            assert_eq!(sent(VectorKind::Ema, 3, ema), Some(block.ema_chunk(3)));
            let update = Update { number, learning_rate: 1e-3 };
            let next = pass(1, update, WireFormat::F32).run(block, &mut [operand()], &pool);
            expected(&mut values, std::slice::from_ref(&gradient), update);
            blocks.push(next);
        }
    }

    #[test]
    fn who_sends_weights_holds_nothing_else() {
        let pool = Pool::default();
        let (block, _) = state(&pool, WireFormat::F32);
        let sent = block.weights_chunk(0).values;
        drop(block);
        assert_eq!(pool.count(LEN), 3, "moments and EMA");
        let free: Vec<_> = (0..3).map(|_| pool.take(LEN)).collect();
        assert_eq!(pool.count(LEN), 0, "there was more");
        assert!(free.iter().all(|buffer| buffer.as_ptr().cast() != sent.as_ptr()));
    }
}
