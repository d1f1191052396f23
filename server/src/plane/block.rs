//! The weights of one chunk of the parameters.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use hw2_common::config::WireFormat;
use hw2_common::wire::{self, Checksum, Values};
use hw2_proto::v1::{Chunk, VectorKind};

use super::addend::Addend;
use super::pass::Pass;
use super::pool::{Buffer, Pool};
use super::strips::widest;

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
        widest(
            #[inline(always)]
            || sending.write(0, &weights),
        );
        sending.add(0..weights.len(), &weights);
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

    /// All of them are added.
    pub(super) fn block(self, weights: Buffer, update: Option<Made>) -> Block {
        let (rounded, checksum) = (self.rounded.map(Arc::new), self.checksum.finish());
        Block { weights: Arc::new(weights), rounded, checksum, update }
    }
}

/// Where these are among the bytes of all.
fn of_bf16(range: Range<usize>) -> Range<usize> {
    let size = WireFormat::Bf16.bytes();
    range.start * size..range.end * size
}

/// Weights that the transport holds.
struct Sent(Arc<Buffer>);

impl AsRef<[u8]> for Sent {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}
