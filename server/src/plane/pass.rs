//! The pass over a chunk of the state that makes an update.

use std::ops::Range;
use std::sync::Arc;

use hw2_common::config::{Config, WireFormat};
use hw2_common::wire::Values;

use super::addend::{Addend, Operand, Value};
use super::ahead::Ahead;
use super::averages::Averages;
use super::block::{Block, Made, Sending};
use super::ema::Ema;
use super::optimizer::Adam;
use super::pool::Pool;
use super::strips::{STRIP, TILE, strips, tiles, widest};
use crate::coordinator::Update;

/// Values between two looks ahead. All lines of the next strip at once are slower than none: a core can
/// wait for few at a time.
const STRETCH: usize = 64;
/// How far ahead: long enough for the lines to come, and so near that they are still in the first cache.
const LEAD: usize = 256;
/// Some vectors are read or written a tile at a time, before the rest of the arithmetic or behind it.
const _: () = assert!(LEAD >= TILE, "what is fetched later than it is read is fetched in vain");

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

/// What an update reads and leaves as it is.
#[derive(Clone, Copy)]
struct Read<'a> {
    old: &'a [f32],
    gradient: &'a [Value],
    /// The update that made the old weights, with its mean gradient, if it is not in moments and EMA yet:
    /// each element takes it in first, so that memory is read once for both.
    due: Option<(&'a Pass, &'a [Value])>,
}

impl Read<'_> {
    #[inline(always)]
    fn range(&self, range: Range<usize>) -> Self {
        let due = self.due.map(|(due, gradient)| (due, &gradient[range.clone()]));
        Self { old: &self.old[range.clone()], gradient: &self.gradient[range], due }
    }
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

    /// The block after the update by the mean of `operands`, which are added in their order: each is a
    /// replica's, or the sum of the first. The averages take the update in that made `block`, and not
    /// yet this one, which may come to nothing: so they change where they are, and no more than the
    /// weights is written anew. Every value passes through the cache once, and there the checksum of
    /// the new weights is made. All arithmetic is by element, so that strips do not show in the bits.
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
        let is_alone = self.replicas == 1;
        assert_eq!(operands.len() == 1, is_alone, "the gradients of {} replicas", self.replicas);
        let mut mean = (!is_alone).then(|| pool.take(len));
        let mut sending = Sending::new(len, self.wire, pool);
        let due = averages.due(block);
        let others = [
            mean.as_deref().map(Values::of),
            due.map(|due| due.gradient.values()),
            sending.values(),
        ];
        let written = others.into_iter().flatten().chain([Values::of(&weights)]);
        let mut ahead = ahead(block, averages, written);
        if is_alone {
            // Its checksum is made a strip at a time. What a mean is made of is not asked for: a core that
            // has just received a gradient has it in its own cache, and to ask for it so gained nothing.
            ahead.add(operands[0].addend().values(), STRIP);
        }
        let mut rooms = [[0.0; TILE]; 2];
        for strip in strips(len) {
            operands.iter_mut().for_each(|operand| operand.add_to_checksum(strip.clone()));
            widest(
                #[inline(always)]
                || {
                    for tile in tiles(strip.clone()) {
                        let [room, due_room] = &mut rooms;
                        let gradient = match &mut mean {
                            None => operands[0].tile(tile.clone(), room),
                            Some(mean) => {
                                let mean = &mut mean[tile.clone()];
                                self.mean(mean, operands, tile.clone());
                                bytemuck::cast_slice(mean)
                            }
                        };
                        let due =
                            due.map(|due| (&due.pass, due.gradient.tile(tile.clone(), due_room)));
                        let read = Read { old: &block.weights[tile.clone()], gradient, due };
                        let new = &mut weights[tile.clone()];
                        self.update(new, averages.range(tile.clone()), read, |at| {
                            ahead.fetch(tile.start + at, STRETCH);
                        });
                        sending.write(tile.start, new);
                    }
                },
            );
            sending.add(strip, &weights);
        }
        if let Some(due) = due {
            averages.update = due.pass.number;
        }
        let gradient = mean.map_or_else(
            || Arc::clone(operands[0].addend()),
            |mean| Arc::new(Addend::Computed(mean)),
        );
        sending.block(weights, Some(Made { pass: *self, gradient }))
    }

    /// The mean over the replicas of some numbers of `operands`.
    #[inline(always)]
    fn mean(&self, mean: &mut [f32], operands: &mut [Operand], range: Range<usize>) {
        let (first, others) = operands.split_first_mut().expect("a step has one replica at least");
        first.values(range.clone()).copy_to(mean);
        // Not `for_each`: so large a closure is not inlined, and so not compiled for the widest vectors.
        for other in others {
            other.values(range.clone()).add_to(mean);
        }
        divide(mean, self.replicas);
    }

    /// Writes the new weights, some at a time. Before those from each number on it calls `before`.
    #[inline(always)]
    fn update(
        &self,
        new: &mut [f32],
        averages: [&mut [f32]; 3],
        read: Read<'_>,
        before: impl Fn(usize),
    ) {
        let [m, v, ema] = averages;
        for start in (0..new.len()).step_by(STRETCH) {
            before(start);
            let range = start..(start + STRETCH).min(new.len());
            let [new, m, v, ema] =
                [&mut *new, m, v, ema].map(|written| &mut written[range.clone()]);
            self.stretch(new, m, v, ema, read.range(range));
        }
    }

    /// The same at once. What is written comes in arguments of its own: of these, but not of what is in
    /// one, the compiler knows that they do not overlap, and need not look.
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
        let (old, gradient) = (&read.old[..len], &read.gradient[..len]);
        match read.due {
            Some((due, due_gradient)) => {
                let due_gradient = &due_gradient[..len];
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

/// Everything that a pass goes through tile by tile: the chunk's state, and `others`.
fn ahead<'a>(
    block: &Block,
    averages: &Averages,
    others: impl Iterator<Item = Values<'a>>,
) -> Ahead {
    let Averages { moment1, moment2, ema, .. } = averages;
    let state = [&*block.weights, moment1, moment2, ema].map(|vector| Values::of(vector));
    let mut ahead = Ahead::default();
    state.into_iter().for_each(|values| ahead.add(values, LEAD));
    others.for_each(|values| ahead.add(values, LEAD));
    ahead
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
    use crate::plane::averages::ema_chunk;
    use hw2_common::config::Optimizer;
    use hw2_common::wire::{self, Checksum};
    use hw2_proto::v1::VectorKind;

    /// The last of the strips, of its tiles, and of that one's stretches are all shorter than others.
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
                let mut others: Vec<_> = addends.iter().cloned().map(Operand::known).collect();
                others[0] = other;
                let given_up = pass.run(&block, &mut averages, &mut others, &pool);
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

    /// What a pass over one gradient, or two, finds out about the last of them.
    fn verdict(gradient: Addend, others: usize, wire: WireFormat) -> Result<(), Fault> {
        let pool = Pool::default();
        let (block, mut averages, _) = state(&pool, wire);
        let fine = Arc::new(received(&vector(0.1), wire));
        let known = (0..others).map(|_| Operand::known(Arc::clone(&fine)));
        let unknown = Operand::unknown(Arc::new(gradient), Ticket(1));
        let mut operands: Vec<_> = known.chain([unknown]).collect();
        let update = Update { number: 7, learning_rate: 1e-3 };
        pass(others as u32 + 1, update, wire).run(&block, &mut averages, &mut operands, &pool);
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
