//! What an update adds to and the workers do not need: moments and EMA of one chunk.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use hw2_common::wire::Checksum;
use hw2_proto::v1::{Chunk, VectorKind};

use super::block::{Block, Made};
use super::pool::Buffer;
use super::strips::{TILE, tiles, widest};

/// The averages of one chunk. They change where they are, and so take in no update before it is
/// committed: they may be one behind the weights. Whoever needs them as they were keeps a clone.
#[derive(Clone, Debug)]
pub(crate) struct Averages {
    pub(super) moment1: Buffer,
    pub(super) moment2: Buffer,
    pub(super) ema: Buffer,
    /// Number of the last update that was taken in; 0 at the start.
    pub(super) update: u64,
}

impl Averages {
    /// With which a server begins.
    pub(super) fn new(moment1: Buffer, moment2: Buffer, ema: Buffer) -> Self {
        Self { moment1, moment2, ema, update: 0 }
    }

    /// The update that made the weights of `block`, if these averages lack it.
    pub(super) fn due<'a>(&self, block: &'a Block) -> Option<&'a Made> {
        block.update.as_ref().filter(|made| made.pass.number > self.update)
    }

    /// Takes in what is due.
    pub(super) fn settle(&mut self, block: &Block) {
        let Some(Made { pass, gradient }) = self.due(block) else { return };
        let mut room = [0.0; TILE];
        widest(
            #[inline(always)]
            || {
                for tile in tiles(0..block.weights.len()) {
                    let len = tile.len();
                    // One length for all, so that the loop needs no bounds checks and is vectorised.
                    let weights = &block.weights[tile.clone()][..len];
                    let gradient = &gradient.tile(tile.clone(), &mut room)[..len];
                    let [m, v, ema] = self.range(tile).map(|average| &mut average[..len]);
                    for i in 0..len {
                        pass.average(gradient[i], weights[i], [&mut m[i], &mut v[i], &mut ema[i]]);
                    }
                }
            },
        );
        self.update = pass.number;
    }

    /// A range of the moments and of the EMA.
    pub(super) fn range(&mut self, range: Range<usize>) -> [&mut [f32]; 3] {
        let averages = [&mut self.moment1, &mut self.moment2, &mut self.ema];
        averages.map(|average| &mut average[range.clone()])
    }
}

/// The EMA to be sent, which is settled; `start` is its place in the vector.
pub(super) fn ema_chunk(averages: &Arc<Averages>, start: usize) -> Chunk {
    let mut checksum = Checksum::default();
    checksum.update(bytemuck::cast_slice(&averages.ema));
    let crc32c = checksum.finish();
    let values = Bytes::from_owner(Sent(Arc::clone(averages)));
    Chunk { kind: VectorKind::Ema.into(), start: start as u64, crc32c, values }
}

/// An EMA that the transport holds.
struct Sent(Arc<Averages>);

impl AsRef<[u8]> for Sent {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0.ema)
    }
}
