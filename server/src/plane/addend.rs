//! A chunk of a gradient on its way into the mean, and whether the update can bear it.

use std::ops::Range;
use std::sync::Arc;

use hw2_common::config::WireFormat;
use hw2_common::wire::{self, Checksum, Values, WireError};
use hw2_proto::v1::Chunk;

use super::ahead;
use super::pool::{Buffer, Pool};
use super::strips::{STRIP, TILE, stretches, strips, widest};

/// A contribution that is being received. No two have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket(pub(super) u64);

/// A chunk of a gradient as it arrived, at any alignment, or one that was computed from several.
#[derive(Debug)]
pub(super) enum Addend {
    Received(Chunk, WireFormat),
    Computed(Buffer),
}

/// A number in f32, at any alignment.
pub(super) type Value = [u8; size_of::<f32>()];

/// Room for the numbers of a tile.
pub(super) type Tile = [f32; TILE];

/// Why a chunk that arrived cannot be used.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Fault {
    /// The bytes are not those that were sent.
    Corrupt(WireError),
    /// The update cannot bear a value; `index` is its place in the vector.
    Unfit { index: usize, value: f32 },
}

impl Fault {
    /// Of two, the one to be named.
    pub(super) fn gravest(self, other: Self) -> Self {
        match (&self, &other) {
            (Self::Unfit { .. }, Self::Corrupt(_)) => other,
            (Self::Unfit { index: first, .. }, Self::Unfit { index, .. }) if index < first => other,
            _ => self,
        }
    }
}

/// What is found out about a chunk of the contribution `ticket` while somebody reads it.
#[derive(Debug)]
struct Inspection {
    ticket: Ticket,
    checksum: Checksum,
    all_fit: bool,
}

/// What was found out.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) ticket: Ticket,
    pub(super) result: Result<(), Fault>,
}

/// An addend as a pass reads it: its bytes strip by strip, its numbers tile by tile. The first pass
/// that does inspects it: reading it for this alone would cost as much again.
#[derive(Debug)]
pub(super) struct Operand {
    addend: Arc<Addend>,
    inspection: Option<Inspection>,
}

impl Addend {
    pub(super) fn values(&self) -> Values<'_> {
        match self {
            Self::Received(chunk, format) => Values::new(&chunk.values, *format),
            Self::Computed(values) => Values::of(values),
        }
    }
}

impl Operand {
    /// Of which nothing is to be found out any more.
    pub(super) fn known(addend: Arc<Addend>) -> Self {
        Self { addend, inspection: None }
    }

    /// Of the contribution `ticket`, which is to be inspected.
    pub(super) fn unknown(addend: Arc<Addend>, ticket: Ticket) -> Self {
        let inspection = Inspection { ticket, checksum: Checksum::default(), all_fit: true };
        Self { addend, inspection: Some(inspection) }
    }

    /// Takes some bytes into the checksum that is made; each pass takes all of them in order.
    pub(super) fn add_to_checksum(&mut self, range: Range<usize>) {
        if let Some(inspection) = &mut self.inspection {
            inspection.checksum.update(self.addend.values().slice(range).bytes());
        }
    }

    /// Somebody is about to read the numbers of a tile: has those that lie a strip further on
    /// fetched. Where a checksum is made, the next strip is read for that first.
    #[inline(always)]
    pub(super) fn ahead(&self, tile: Range<usize>) {
        for stretch in stretches(tile) {
            let values = self.addend.values().slice(stretch);
            match values.as_f32() {
                Some(values) => ahead::fetch(values, STRIP),
                None => {
                    let values: &[[u8; WireFormat::Bf16.bytes()]] =
                        bytemuck::cast_slice(values.bytes());
                    ahead::fetch(values, STRIP);
                }
            }
        }
    }

    /// Some of the numbers; each pass asks for all of them once.
    #[inline(always)]
    pub(super) fn values(&mut self, range: Range<usize>) -> Values<'_> {
        let values = self.addend.values().slice(range);
        if let Some(inspection) = &mut self.inspection {
            inspection.all_fit &= values.all(fits);
        }
        values
    }

    /// Those of a tile, where they are or in `room` for them.
    #[inline(always)]
    pub(super) fn tile<'a>(&'a mut self, range: Range<usize>, room: &'a mut Tile) -> &'a [Value] {
        let values = self.values(range);
        values.as_f32().unwrap_or_else(|| {
            let room = &mut room[..values.len()];
            values.copy_to(room);
            bytemuck::cast_slice(room)
        })
    }

    /// Reads all of it for nothing else but the verdict.
    pub(super) fn inspect(&mut self) {
        for strip in strips(self.addend.values().len()) {
            self.add_to_checksum(strip.clone());
            widest(
                #[inline(always)]
                || {
                    self.values(strip);
                },
            );
        }
    }

    /// What was found out, if something was to be.
    pub(super) fn verdict(self) -> Option<Verdict> {
        let Inspection { ticket, checksum, all_fit } = self.inspection?;
        let Addend::Received(chunk, format) = &*self.addend else {
            unreachable!("what was computed is known");
        };
        let result = match wire::verify(chunk, checksum.finish()) {
            Err(error) => Err(Fault::Corrupt(error)),
            Ok(()) if all_fit => Ok(()),
            Ok(()) => {
                let found = first_unfit(Values::new(&chunk.values, *format));
                let (index, value) = found.expect("one that does not fit");
                Err(Fault::Unfit { index: chunk.start as usize + index, value })
            }
        };
        Some(Verdict { ticket, result })
    }
}

/// The sum of two, in new memory.
pub(super) fn sum(a: &Addend, b: &Addend, pool: &Pool) -> Buffer {
    let mut sum = pool.take(a.values().len());
    widest(
        #[inline(always)]
        || {
            a.values().copy_to(&mut sum);
            b.values().add_to(&mut sum);
        },
    );
    sum
}

/// Whether the update can bear a value. Its square must be finite too: then the sum over any number
/// of replicas, and Adam's second moment, are.
#[inline(always)]
fn fits(value: f32) -> bool {
    (value * value).is_finite()
}

#[inline(always)]
fn all_fit(values: Values<'_>) -> bool {
    widest(
        #[inline(always)]
        || values.all(fits),
    )
}

/// The first value that the update cannot bear, and its place among them; there is hardly ever one.
pub(crate) fn first_unfit(values: Values<'_>) -> Option<(usize, f32)> {
    if all_fit(values) {
        return None;
    }
    let mut all = (0..values.len()).map(|index| (index, values.at(index)));
    all.find(|(_, value)| !fits(*value))
}

#[cfg(test)]
pub(super) mod tests {
    use bytes::Bytes;
    use hw2_proto::v1::VectorKind;

    use super::*;

    /// `values` as a frame holds them: behind other bytes.
    pub(in super::super) fn received(values: &[f32], wire: WireFormat) -> Addend {
        let mut bytes = vec![0; 1 + values.len() * wire.bytes()];
        wire::encode(values, &mut bytes[1..], wire);
        let mut checksum = Checksum::default();
        checksum.update(&bytes[1..]);
        let crc32c = checksum.finish();
        let values = Bytes::from(bytes).slice(1..);
        let kind = VectorKind::Gradient.into();
        Addend::Received(Chunk { kind, start: 0, crc32c, values }, wire)
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
}
