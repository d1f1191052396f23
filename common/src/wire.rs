//! Flat vectors on the wire: cut into chunks, checked, and put together again.
//!
//! The unit is a range of a flat vector. A chunk is at most [`CHUNK_VALUES`] values, a little less
//! than one HTTP/2 frame of 256 KiB, so that a message is one frame and fits a core's cache: each
//! side passes over it several times.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use hw2_proto::v1::{Chunk, Part};

use crate::state::Flat;

#[cfg(target_endian = "big")]
compile_error!("the wire and the checkpoints carry values as this machine lays them out");

/// Most values of one chunk: 252 KiB.
pub const CHUNK_VALUES: usize = 63 * 1024;

/// Chunks that a vector may come in beyond those of full length: each bucket may end with a short one.
const SHORT_CHUNKS_MAX: usize = 1024;

/// Largest message either side accepts: a chunk, or the names of all bad images of a micro-batch.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// HTTP/2 frame size; a chunk with its head fits in one.
pub const FRAME_BYTES: u32 = 1 << 18;

/// Why a chunk or a set of chunks is refused. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The bytes are not those that were sent.
    #[error("chunk at {start}: CRC32C is {found:08x}, its sender computed {sent:08x}")]
    Corrupt {
        /// Index of the chunk's first value.
        start: u64,
        /// As the sender computed it.
        sent: u32,
        /// Over the bytes that arrived.
        found: u32,
    },
    /// Not a whole number of values, none at all, or more than a chunk may hold.
    #[error("chunk at {start}: {bytes} bytes are not 1 to {CHUNK_VALUES} values of 4 bytes")]
    Size {
        /// Index of the chunk's first value.
        start: u64,
        /// Bytes that arrived.
        bytes: usize,
    },
    /// Beyond the end of the vector.
    #[error("chunk of values {start} to {end} is outside a vector of {len} values")]
    Outside {
        /// First value.
        start: u64,
        /// After the last value.
        end: u64,
        /// Values of the vector.
        len: usize,
    },
    /// Some values came twice.
    #[error("chunk at {start} overlaps another one of its vector")]
    Overlap {
        /// Index of the chunk's first value.
        start: u64,
    },
    /// Its sender cuts the vector into crumbs.
    #[error("a vector of {len} values in more than {chunks_max} chunks")]
    TooManyChunks {
        /// Values of the vector.
        len: usize,
        /// Most chunks it may come in.
        chunks_max: usize,
    },
    /// A part that does not belong in this stream.
    #[error("part {0} does not belong in this stream")]
    UnexpectedPart(i32),
    /// The stream ended too early.
    #[error("only {found} of {len} values arrived")]
    Incomplete {
        /// Values that arrived.
        found: usize,
        /// Values of the vector.
        len: usize,
    },
}

/// Cuts `range` into ranges of at most [`CHUNK_VALUES`].
pub fn chunk_ranges(range: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let end = range.end;
    range.step_by(CHUNK_VALUES).map(move |start| start..(start + CHUNK_VALUES).min(end))
}

/// The chunks of `values`, which stand at `start` of their flat vector. They share the memory:
/// nothing is copied, and nobody can write to it until the last of them is gone.
pub fn chunks(part: Part, start: usize, values: &Flat) -> impl Iterator<Item = Chunk> + use<> {
    cut(part, start, values).map(|mut chunk| {
        chunk.crc32c = crc32c::crc32c(&chunk.values);
        chunk
    })
}

/// As [`chunks`], of a whole vector whose [`checksums`] are known already.
///
/// # Panics
/// If they are not as many as the chunks.
pub fn chunks_with(part: Part, values: &Flat, checksums: &[u32]) -> impl Iterator<Item = Chunk> {
    assert_eq!(checksums.len(), values.len().div_ceil(CHUNK_VALUES), "one for each chunk");
    cut(part, 0, values).zip(checksums).map(|(mut chunk, checksum)| {
        chunk.crc32c = *checksum;
        chunk
    })
}

/// The chunks without their checksums.
fn cut(part: Part, start: usize, values: &Flat) -> impl Iterator<Item = Chunk> + use<> {
    let bytes = Bytes::from_owner(FlatBytes(Arc::clone(values)));
    chunk_ranges(0..values.len()).map(move |range| Chunk {
        part: part.into(),
        start: (start + range.start) as u64,
        crc32c: 0,
        values: bytes.slice(range.start * 4..range.end * 4),
    })
}

/// The CRC32C of each chunk of `values`.
pub fn checksums(values: &[f32]) -> Vec<u32> {
    values.chunks(CHUNK_VALUES).map(|chunk| append(0, chunk)).collect()
}

/// The CRC32C of what `crc32c` is that of, followed by `values`; that of nothing is 0.
pub fn append(crc32c: u32, values: &[f32]) -> u32 {
    crc32c::crc32c_append(crc32c, bytemuck::cast_slice(values))
}

struct FlatBytes(Flat);

impl AsRef<[u8]> for FlatBytes {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

/// A flat vector that is being received.
#[derive(Debug)]
pub struct Assembly {
    values: Vec<f32>,
    /// First value of each chunk -> (values, CRC32C).
    received: BTreeMap<usize, (usize, u32)>,
    found: usize,
}

impl Assembly {
    /// Receives into `buffer`, whose length is the vector's; what it holds does not matter.
    pub fn new(buffer: Vec<f32>) -> Self {
        Self { values: buffer, received: BTreeMap::new(), found: 0 }
    }

    /// Takes one chunk in.
    ///
    /// # Errors
    /// The chunk is corrupt, of a wrong size, outside, overlaps one that came before, or is one too
    /// many.
    pub fn add(&mut self, chunk: &Chunk) -> Result<(), WireError> {
        let Chunk { start, values: bytes, .. } = chunk;
        let (start, len) = (*start, bytes.len() / 4);
        if !bytes.len().is_multiple_of(4) || !(1..=CHUNK_VALUES).contains(&len) {
            return Err(WireError::Size { start, bytes: bytes.len() });
        }
        let end = start.saturating_add(len as u64);
        if end > self.values.len() as u64 {
            return Err(WireError::Outside { start, end, len: self.values.len() });
        }
        let chunks_max = self.values.len() / CHUNK_VALUES + SHORT_CHUNKS_MAX;
        if self.received.len() == chunks_max {
            return Err(WireError::TooManyChunks { len: self.values.len(), chunks_max });
        }
        let crc = crc32c::crc32c(bytes);
        if crc != chunk.crc32c {
            return Err(WireError::Corrupt { start, sent: chunk.crc32c, found: crc });
        }
        let range = start as usize..end as usize;
        let before = self.received.range(..range.end).next_back();
        if before.is_some_and(|(other, (len, _))| other + len > range.start) {
            return Err(WireError::Overlap { start });
        }
        bytemuck::cast_slice_mut(&mut self.values[range.clone()]).copy_from_slice(bytes);
        self.received.insert(range.start, (len, crc));
        self.found += len;
        Ok(())
    }

    /// Gives the memory back, whatever has arrived.
    pub fn abandon(self) -> Vec<f32> {
        self.values
    }

    /// Tells vectors that were cut alike apart: a CRC32C over the chunks' places and checksums.
    pub fn digest(&self) -> u32 {
        self.received.iter().fold(0, |digest, (start, (len, crc))| {
            let chunk = [*start as u64, *len as u64, u64::from(*crc)];
            crc32c::crc32c_append(digest, bytemuck::cast_slice(&chunk))
        })
    }

    /// The vector.
    ///
    /// # Errors
    /// Values are missing.
    pub fn finish(self) -> Result<Vec<f32>, WireError> {
        let len = self.values.len();
        match self.found == len {
            true => Ok(self.values),
            false => Err(WireError::Incomplete { found: self.found, len }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vector(len: usize) -> Flat {
        Arc::new((0..len).map(|i| i as f32).collect())
    }

    #[test]
    fn a_vector_survives_in_any_order_and_cut() {
        let vector = vector(CHUNK_VALUES * 2 + 7);
        let whole: Vec<_> = chunks(Part::Weights, 0, &vector).collect();
        assert_eq!(whole.len(), 3);
        let (head, tail) = (vector[..100].to_vec(), vector[100..].to_vec());
        let mut cut: Vec<_> = chunks(Part::Weights, 100, &Arc::new(tail)).collect();
        cut.extend(chunks(Part::Weights, 0, &Arc::new(head)));
        for chunks in [&whole, &cut] {
            let mut assembly = Assembly::new(vec![f32::NAN; vector.len()]);
            chunks.iter().for_each(|chunk| assembly.add(chunk).unwrap());
            assert_eq!(assembly.finish().unwrap(), *vector);
        }
    }

    #[test]
    fn a_digest_depends_on_the_values_and_not_on_the_order_of_arrival() {
        let digest = |chunks: &mut dyn Iterator<Item = Chunk>| {
            let mut assembly = Assembly::new(vec![0.0; 2 * CHUNK_VALUES]);
            chunks.for_each(|chunk| assembly.add(&chunk).unwrap());
            assembly.digest()
        };
        let vector = vector(2 * CHUNK_VALUES);
        let whole: Vec<_> = chunks(Part::Gradient, 0, &vector).collect();
        let forward = digest(&mut whole.clone().into_iter());
        assert_eq!(digest(&mut whole.into_iter().rev()), forward);
        let mut other = vector.to_vec();
        other[CHUNK_VALUES + 1] += 1.0;
        assert_ne!(digest(&mut chunks(Part::Gradient, 0, &Arc::new(other))), forward);
    }

    #[test]
    fn a_vector_whose_checksums_are_known_is_cut_as_any_other() {
        let vector = vector(CHUNK_VALUES + 7);
        let whole: Vec<_> = chunks(Part::Weights, 0, &vector).collect();
        let checksums = checksums(&vector);
        let known = chunks_with(Part::Weights, &vector, &checksums);
        assert_eq!(known.collect::<Vec<_>>(), whole);
    }

    #[test]
    fn a_vector_in_crumbs_is_refused() {
        let mut assembly = Assembly::new(vec![0.0; CHUNK_VALUES]);
        let crumb = |start| chunks(Part::Gradient, start, &vector(1)).next().unwrap();
        let mut results = (0..=SHORT_CHUNKS_MAX + 1).map(|start| assembly.add(&crumb(start)));
        assert!(results.by_ref().take(SHORT_CHUNKS_MAX + 1).all(|result| result.is_ok()));
        assert!(matches!(results.next().unwrap(), Err(WireError::TooManyChunks { .. })));
    }

    #[test]
    fn what_is_wrong_with_a_chunk_is_named_and_changes_nothing() {
        let good: Vec<_> = chunks(Part::Gradient, 0, &vector(6)).collect();
        let mut assembly = Assembly::new(vec![0.0; 10]);
        assembly.add(&good[0]).unwrap();
        let mut bad = good[0].clone();
        assert_eq!(assembly.add(&bad), Err(WireError::Overlap { start: 0 }));
        bad.start = 6;
        assert!(matches!(assembly.add(&bad), Err(WireError::Outside { end: 12, .. })));
        bad.start = u64::MAX;
        assert!(matches!(assembly.add(&bad), Err(WireError::Outside { .. })));
        bad.start = 4;
        bad.crc32c ^= 1;
        assert!(matches!(assembly.add(&bad), Err(WireError::Corrupt { .. })));
        bad.values = bad.values.slice(..5);
        assert_eq!(assembly.add(&bad), Err(WireError::Size { start: 4, bytes: 5 }));
        bad.values = Bytes::new();
        assert_eq!(assembly.add(&bad), Err(WireError::Size { start: 4, bytes: 0 }));
        assert_eq!(assembly.finish().unwrap_err(), WireError::Incomplete { found: 6, len: 10 });
    }
}
