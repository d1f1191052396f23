//! The state of one chunk of the parameters.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use hw2_common::config::WireFormat;
use hw2_common::wire::{self, Checksum, Values};
use hw2_proto::v1::{Chunk, VectorKind};

use super::ahead;
use super::ema::Average;
use super::past::Past;
use super::pool::{Buffer, Pool};
use super::strips::{TILE, tiles, widest};

/// One chunk's range of the state. It never changes: an update makes a new one, so that a step that
/// is given up leaves no trace, and whoever needs the state of a moment keeps it without a copy.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) weights: Arc<Buffer>,
    pub(crate) moment1: Buffer,
    pub(crate) moment2: Buffer,
    pub(crate) ema: Average,
    /// The weights as they are sent, if that is not as they are: bytes, in memory for numbers.
    rounded: Option<Arc<Buffer>>,
    /// CRC32C of the weights as they are sent.
    checksum: u32,
}

impl Block {
    /// With which a server begins whose weights travel in `wire`: weights, moments, EMA.
    pub(crate) fn new(vectors: [&[f32]; 4], wire: WireFormat, pool: &Pool) -> Self {
        let [weights, moment1, moment2, ema] = vectors;
        let mut sending = Sending::new(weights.len(), wire, pool);
        let mut room = [0.0; TILE];
        widest(
            #[inline(always)]
            || {
                for tile in tiles(0..weights.len()) {
                    let weights = &weights[tile.clone()];
                    sending.place(tile.clone(), &mut room).copy_from_slice(weights);
                    sending.written(tile, weights);
                }
            },
        );
        sending.add_to_checksum(0..weights.len());
        let moments = [moment1, moment2].map(|moment| pool.copy_of(moment));
        sending.block(moments, Average::whole(pool.copy_of(ema)))
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

    /// The EMA to be sent; `start` is its place in the vector.
    pub(crate) fn ema_chunk(&self, start: usize) -> Chunk {
        let ema = self.ema.of(&self.weights);
        let mut checksum = Checksum::default();
        checksum.update(bytemuck::cast_slice(&ema));
        Chunk {
            kind: VectorKind::Ema.into(),
            start: start as u64,
            crc32c: checksum.finish(),
            values: Bytes::from_owner(Sent(ema)),
        }
    }
}

/// New weights on their way into a block, and from there to the workers. Some at a time, in order,
/// they are put in their [place](Self::place), [written](Self::written), and [added to the
/// checksum](Self::add_to_checksum).
pub(super) struct Sending {
    /// As they are sent, which is next: bytes, in memory for numbers.
    sent: Buffer,
    /// As they are, if that is something else.
    exact: Option<Past>,
    wire: WireFormat,
    checksum: Checksum,
}

impl Sending {
    /// Of so many, which travel in `wire`.
    pub(super) fn new(len: usize, wire: WireFormat, pool: &Pool) -> Self {
        let sent = pool.take((len * wire.bytes()).div_ceil(size_of::<f32>()));
        let exact = match wire {
            WireFormat::F32 => None,
            WireFormat::Bf16 => Some(Past::new(pool.take(len))),
        };
        Self { sent, exact, wire, checksum: Checksum::default() }
    }

    /// Somebody is about to write those from number `start` on: has what lies `lead` further on
    /// fetched.
    #[inline(always)]
    pub(super) fn ahead(&self, start: usize, lead: usize) {
        match self.wire {
            WireFormat::F32 => ahead::fetch(&self.sent[start..], lead),
            WireFormat::Bf16 => {
                ahead::fetch::<u16>(&bytemuck::cast_slice(&self.sent)[start..], lead)
            }
        }
    }

    /// Where to write those of `range`, the next ones: where they stay, or in `room`.
    #[inline(always)]
    pub(super) fn place<'a>(
        &'a mut self,
        range: Range<usize>,
        room: &'a mut [f32],
    ) -> &'a mut [f32] {
        match self.exact {
            None => &mut self.sent[range],
            Some(_) => &mut room[..range.len()],
        }
    }

    /// Those of `range` are in their place, which may be `room`.
    #[inline(always)]
    pub(super) fn written(&mut self, range: Range<usize>, room: &[f32]) {
        if let Some(exact) = &mut self.exact {
            let weights = &room[..range.len()];
            exact.write(weights);
            let size = self.wire.bytes();
            let bytes = range.start * size..range.end * size;
            wire::encode(weights, &mut bytemuck::cast_slice_mut(&mut self.sent)[bytes], self.wire);
        }
    }

    /// Those of `range`, the next ones, are written.
    pub(super) fn add_to_checksum(&mut self, range: Range<usize>) {
        let sent = Values::new(bytemuck::cast_slice(&self.sent), self.wire);
        self.checksum.update(sent.slice(range).bytes());
    }

    /// All weights are added.
    pub(super) fn block(self, moments: [Buffer; 2], ema: Average) -> Block {
        let Self { sent, exact, checksum, .. } = self;
        let (weights, rounded) = match exact {
            None => (sent, None),
            Some(exact) => (exact.finish(), Some(Arc::new(sent))),
        };
        let [moment1, moment2] = moments;
        let (weights, checksum) = (Arc::new(weights), checksum.finish());
        Block { weights, moment1, moment2, ema, rounded, checksum }
    }
}

/// Values that the transport holds: no more of a block than it needs.
struct Sent(Arc<Buffer>);

impl AsRef<[u8]> for Sent {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}
