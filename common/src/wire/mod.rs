//! Flat vectors on the wire: cut into chunks, checked, and put together again.
//!
//! The unit is a range of a flat vector. A chunk of weights or gradients is at most 252 KiB, a
//! little less than one HTTP/2 frame, so that its values are one frame and fit a core's cache: each
//! side passes over them several times.

mod arrivals;
mod cut;
mod format;

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use crc_fast::CrcAlgorithm;
use hw2_proto::v1::{Chunk, VectorKind};

use crate::config::WireFormat;
use crate::state::Flat;

pub use arrivals::{Arrivals, Assembly};
use cut::chunk_ranges;
pub use cut::{Bucket, Cut, TooManyShards};
pub use format::{Values, encode};

#[cfg(target_endian = "big")]
compile_error!("the wire and the checkpoints carry values as this machine lays them out");

/// Most values of one chunk of f32: 252 KiB.
pub const CHUNK_VALUES: usize = 63 << 10;

/// Largest message either side accepts: a chunk, or the names of all bad images of a micro-batch.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;
const _: () = assert!(MESSAGE_BYTES_MAX > 2 * CHUNK_VALUES * WireFormat::F32.bytes() + 1024);

/// HTTP/2 frame size; the values of a chunk of weights or gradients fit in one.
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
    /// Not cut from the vector where both sides cut it.
    #[error("{bytes} bytes at value {start} are no chunk of this vector of {len} values")]
    NoChunk {
        /// Index of the chunk's first value.
        start: u64,
        /// Bytes that arrived.
        bytes: usize,
        /// Values of the vector.
        len: usize,
    },
    /// Some values came twice.
    #[error("the chunk at {start} came twice")]
    Twice {
        /// Index of the chunk's first value.
        start: u64,
    },
    /// It is of a vector that has no place in this stream.
    #[error("a chunk of {} does not belong in this stream", name(*.0))]
    UnexpectedKind(i32),
    /// The stream ended too early.
    #[error("only {found} of {len} values arrived")]
    Incomplete {
        /// Values that arrived.
        found: usize,
        /// Values of the vector.
        len: usize,
    },
}

/// The chunks of `values`, which stand at `start` of their flat vector and are whole chunks of it,
/// in f32, with their `checksums`. They share the memory: nothing is copied, and nobody can write
/// to it until the last is gone.
///
/// # Panics
/// If there are more or fewer checksums than chunks.
pub fn chunks(
    kind: VectorKind,
    start: usize,
    values: &Flat,
    checksums: &[u32],
) -> impl Iterator<Item = Chunk> + use<> {
    let bytes = Bytes::from_owner(FlatBytes(Arc::clone(values)));
    let ranges: Vec<_> = chunk_ranges(start..start + values.len(), CHUNK_VALUES).collect();
    encoded_chunks(kind, &ranges, &bytes, WireFormat::F32, checksums)
}

/// The same of values that are encoded already, cut into these `ranges` of their flat vector.
///
/// # Panics
/// As [`chunks`].
pub fn encoded_chunks(
    kind: VectorKind,
    ranges: &[Range<usize>],
    values: &Bytes,
    format: WireFormat,
    checksums: &[u32],
) -> impl Iterator<Item = Chunk> + use<> {
    assert_eq!(checksums.len(), ranges.len(), "a checksum for each chunk");
    let (bytes, size) = (values.clone(), format.bytes());
    let first = ranges.first().map_or(0, |range| range.start);
    let (ranges, checksums) = (ranges.to_vec(), checksums.to_vec());
    ranges.into_iter().zip(checksums).map(move |(range, crc32c)| {
        let values = bytes.slice((range.start - first) * size..(range.end - first) * size);
        Chunk { kind: kind.into(), start: range.start as u64, crc32c, values }
    })
}

/// The checksums of the chunks of `values`, which are whole chunks of their flat vector, in f32.
pub fn checksums(values: &[f32]) -> Vec<u32> {
    chunk_ranges(0..values.len(), CHUNK_VALUES)
        .map(|range| crc32c(bytemuck::cast_slice(&values[range])))
        .collect()
}

/// Encodes the values of some chunks in a row, whose `ranges` of their flat vector these are, and
/// returns the chunks' checksums, each of which is made while its values are in the cache.
///
/// # Panics
/// As [`encode`].
pub fn encode_with_checksums(
    ranges: &[Range<usize>],
    values: &[f32],
    to: &mut [u8],
    format: WireFormat,
) -> Vec<u32> {
    let size = format.bytes();
    let first = ranges.first().map_or(0, |range| range.start);
    let one = |range: &Range<usize>| {
        let range = range.start - first..range.end - first;
        let to = &mut to[range.start * size..range.end * size];
        pulp::Arch::new().dispatch(
            #[inline(always)]
            || encode(&values[range], to, format),
        );
        crc32c(to)
    };
    ranges.iter().map(one).collect()
}

/// A CRC32C that is made piece by piece.
#[derive(Debug)]
pub struct Checksum(crc_fast::Digest);

impl Default for Checksum {
    fn default() -> Self {
        Self(crc_fast::Digest::new(CrcAlgorithm::Crc32Iscsi))
    }
}

impl Checksum {
    /// Takes the next piece in.
    pub fn update(&mut self, values: &[u8]) {
        self.0.update(values);
    }

    /// The checksum of all pieces.
    pub fn finish(&self) -> u32 {
        self.0.finalize() as u32
    }
}

/// Whether the bytes of a chunk, whose checksum is `found`, are those that were sent.
///
/// # Errors
/// They are not.
pub fn verify(chunk: &Chunk, found: u32) -> Result<(), WireError> {
    let Chunk { start, crc32c: sent, .. } = *chunk;
    match found == sent {
        true => Ok(()),
        false => Err(WireError::Corrupt { start, sent, found }),
    }
}

/// The checksum of one piece.
fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

/// Of a vector, for people.
fn name(kind: i32) -> &'static str {
    VectorKind::try_from(kind).map_or("an unknown vector", |kind| kind.as_str_name())
}

struct FlatBytes(Flat);

impl AsRef<[u8]> for FlatBytes {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::ParamLayout;
    use crate::model::ModelSpec;

    fn vector(len: usize) -> Flat {
        Arc::new((0..len).map(|i| i as f32).collect())
    }

    fn chunks_of(vector: &Flat) -> Vec<Chunk> {
        chunks(VectorKind::Weights, 0, vector, &checksums(vector)).collect()
    }

    #[test]
    fn a_vector_survives_in_any_order() {
        let vector = vector(CHUNK_VALUES * 2 + 7);
        let mut chunks = chunks_of(&vector);
        assert_eq!(chunks.len(), 3);
        chunks.reverse();
        let mut assembly =
            Assembly::new(Cut::whole(vector.len()), WireFormat::F32, vec![f32::NAN; vector.len()]);
        chunks.iter().for_each(|chunk| assembly.add(chunk).unwrap());
        assert_eq!(assembly.finish().unwrap(), *vector);
    }

    #[test]
    fn parameters_are_cut_at_their_buckets() {
        let network = ModelSpec::default().network(65).unwrap();
        let layout = ParamLayout::new(&network);
        for (wire, shards, most) in
            [(WireFormat::F32, 1, 252), (WireFormat::Bf16, 1, 252), (WireFormat::Bf16, 2, 126)]
        {
            let cut = Cut::params(&layout, wire, shards);
            let mut end = 0;
            for range in cut.ranges() {
                assert_eq!(range.start, end);
                assert!((1..=(most << 10) / wire.bytes()).contains(&range.len()));
                end = range.end;
            }
            assert_eq!((end, cut.values().len()), (layout.params.len(), layout.params.len()));
            for (bucket, range) in cut.buckets().iter().zip(layout.buckets()) {
                let ranges = &cut.ranges()[bucket.chunks.clone()];
                assert_eq!(ranges[0].start..ranges[ranges.len() - 1].end, range);
            }
        }
    }

    #[test]
    fn a_digest_depends_on_the_values_and_not_on_the_order_of_arrival() {
        let digest = |chunks: &mut dyn Iterator<Item = Chunk>| {
            let mut arrivals = Arrivals::new(Cut::whole(2 * CHUNK_VALUES), WireFormat::F32);
            chunks.for_each(|chunk| assert!(arrivals.add(&chunk).is_ok()));
            arrivals.digest()
        };
        let vector = vector(2 * CHUNK_VALUES);
        let whole = chunks_of(&vector);
        let forward = digest(&mut whole.clone().into_iter());
        assert_eq!(digest(&mut whole.into_iter().rev()), forward);
        let mut other = vector.to_vec();
        other[CHUNK_VALUES + 1] += 1.0;
        assert_ne!(digest(&mut chunks_of(&Arc::new(other)).into_iter()), forward);
    }

    #[test]
    fn a_checksum_is_made_piece_by_piece() {
        let vector = vector(100);
        let mut checksum = Checksum::default();
        vector.chunks(7).for_each(|piece| checksum.update(bytemuck::cast_slice(piece)));
        assert_eq!(checksum.finish(), chunks_of(&vector)[0].crc32c);
    }

    #[test]
    fn what_is_encoded_is_what_arrives() {
        let vector = vector(CHUNK_VALUES + 7);
        let cut = Cut::whole(vector.len());
        for wire in [WireFormat::F32, WireFormat::Bf16] {
            let mut bytes = vec![0; vector.len() * wire.bytes()];
            let checksums = encode_with_checksums(cut.ranges(), &vector, &mut bytes, wire);
            assert_eq!(checksums == super::checksums(&vector), wire == WireFormat::F32);
            let bytes = Bytes::from(bytes);
            let mut exact = Assembly::new(cut.clone(), wire, vec![0.0; vector.len()]);
            for chunk in
                encoded_chunks(VectorKind::Gradient, cut.ranges(), &bytes, wire, &checksums)
            {
                exact.add(&chunk).unwrap();
            }
            let arrived = exact.finish().unwrap();
            let off = |(a, b): (&f32, &f32)| (a - b).abs() <= b.abs() / 256.0;
            assert!(arrived.iter().zip(&*vector).all(off));
            assert_eq!(arrived == *vector, wire == WireFormat::F32);
            // What is exact in any run.
            let statistics = chunks_of(&vector).into_iter().map(|mut chunk| {
                chunk.kind = VectorKind::BatchStatistics.into();
                chunk
            });
            let mut exact = Assembly::new(Cut::whole(vector.len()), wire, vec![0.0; vector.len()]);
            statistics.for_each(|chunk| exact.add(&chunk).unwrap());
            assert_eq!(exact.finish().unwrap(), *vector);
        }
    }

    #[test]
    fn the_checksum_is_crc32c() {
        // The check value of the catalogue of parametrised CRC algorithms.
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn what_is_wrong_with_a_chunk_is_named_and_changes_nothing() {
        let len = CHUNK_VALUES + 4;
        let good = chunks_of(&vector(len));
        let mut assembly = Assembly::new(Cut::whole(len), WireFormat::F32, vec![0.0; len]);
        assembly.add(&good[0]).unwrap();
        assert_eq!(assembly.add(&good[0]), Err(WireError::Twice { start: 0 }));
        let mut bad = good[1].clone();
        let no_chunk = |start, bytes| Err(WireError::NoChunk { start, bytes, len });
        for start in [1, len as u64, u64::MAX] {
            bad.start = start;
            assert_eq!(assembly.add(&bad), no_chunk(start, 16));
        }
        bad = good[1].clone();
        bad.crc32c ^= 1;
        assert!(matches!(assembly.add(&bad), Err(WireError::Corrupt { .. })));
        for bytes in [0, 5, 12] {
            bad.values = good[1].values.slice(..bytes);
            assert_eq!(assembly.add(&bad), no_chunk(bad.start, bytes));
        }
        let found = CHUNK_VALUES;
        assert_eq!(assembly.clone().finish(), Err(WireError::Incomplete { found, len }));
        assembly.add(&good[1]).unwrap();
        assert_eq!(assembly.finish().unwrap(), *vector(len));
    }
}
