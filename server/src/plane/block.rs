//! The state of one chunk of the parameters.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use hw2_common::config::WireFormat;
use hw2_common::wire::{self, Checksum, Values};
use hw2_proto::v1::{Chunk, VectorKind};

use super::pool::{Buffer, Pool};
use super::strips::widest;

/// One chunk's range of the state. It never changes: an update makes a new one, so that a step that is
/// given up leaves no trace, and whoever needs the state of a moment keeps it without a copy.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) weights: Arc<Buffer>,
    pub(crate) moment1: Arc<Buffer>,
    pub(crate) moment2: Arc<Buffer>,
    pub(crate) ema: Arc<Buffer>,
    /// The weights as they are sent, if that is not as they are: bytes, in memory for numbers.
    rounded: Option<Arc<Buffer>>,
    /// CRC32C of the weights as they are sent.
    checksum: u32,
}

impl Block {
    /// With which a server begins whose weights travel in `wire`: weights, moments, EMA.
    pub(crate) fn new(vectors: [Buffer; 4], wire: WireFormat, pool: &Pool) -> Self {
        let weights = &vectors[0];
        let mut sending = Sending::new(weights.len(), wire, pool);
        widest(
            #[inline(always)]
            || sending.write(0, weights),
        );
        sending.add(0..weights.len(), weights);
        sending.block(vectors)
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
        let mut checksum = Checksum::default();
        checksum.update(bytemuck::cast_slice(&self.ema));
        Chunk {
            kind: VectorKind::Ema.into(),
            start: start as u64,
            crc32c: checksum.finish(),
            values: Bytes::from_owner(Sent(Arc::clone(&self.ema))),
        }
    }
}

/// New weights on their way into a block.
pub(super) struct Sending {
    rounded: Option<Buffer>,
    checksum: Checksum,
}

impl Sending {
    /// Of so many, which travel in `wire`.
    pub(super) fn new(len: usize, wire: WireFormat, pool: &Pool) -> Self {
        let rounded = match wire {
            WireFormat::F32 => None,
            WireFormat::Bf16 => Some(pool.take((len * wire.bytes()).div_ceil(size_of::<f32>()))),
        };
        Self { rounded, checksum: Checksum::default() }
    }

    /// Where they are written, if not as they are.
    pub(super) fn values(&self) -> Option<Values<'_>> {
        let rounded = bytemuck::cast_slice(self.rounded.as_deref()?);
        Some(Values::new(rounded, WireFormat::Bf16))
    }

    /// Those from number `start` on are `weights`.
    #[inline(always)]
    pub(super) fn write(&mut self, start: usize, weights: &[f32]) {
        if let Some(rounded) = &mut self.rounded {
            let bytes = of_bf16(start..start + weights.len());
            let rounded = &mut bytemuck::cast_slice_mut(rounded)[bytes];
            wire::encode(weights, rounded, WireFormat::Bf16);
        }
    }

    /// The next ones, those of `range`, are written.
    pub(super) fn add(&mut self, range: Range<usize>, weights: &[f32]) {
        self.checksum.update(match &self.rounded {
            None => bytemuck::cast_slice(&weights[range]),
            Some(rounded) => &bytemuck::cast_slice(rounded)[of_bf16(range)],
        });
    }

    /// All weights are added; `vectors` are they, moments, and EMA.
    pub(super) fn block(self, vectors: [Buffer; 4]) -> Block {
        let (rounded, checksum) = (self.rounded.map(Arc::new), self.checksum.finish());
        let [weights, moment1, moment2, ema] = vectors.map(Arc::new);
        Block { weights, moment1, moment2, ema, rounded, checksum }
    }
}

/// Where these are among the bytes of all.
fn of_bf16(range: Range<usize>) -> Range<usize> {
    let size = WireFormat::Bf16.bytes();
    range.start * size..range.end * size
}

/// Values that the transport holds: no more of a block than it needs.
struct Sent(Arc<Buffer>);

impl AsRef<[u8]> for Sent {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}
