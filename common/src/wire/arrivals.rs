//! What has arrived of a vector.

use hw2_proto::v1::Chunk;

use super::{Cut, Values, WireError, crc32c, verify};
use crate::config::WireFormat;

/// Which chunks of a vector have arrived.
#[derive(Clone, Debug)]
pub struct Arrivals {
    cut: Cut,
    wire: WireFormat,
    /// CRC32C of each chunk, as its sender computed it.
    received: Vec<Option<u32>>,
}

impl Arrivals {
    /// None yet, of a vector that is cut so, in a run whose format is `wire`.
    pub fn new(cut: Cut, wire: WireFormat) -> Self {
        Self { received: vec![None; cut.ranges().len()], cut, wire }
    }

    /// Where the vector is cut.
    pub fn cut(&self) -> &Cut {
        &self.cut
    }

    /// None again.
    pub fn clear(&mut self) {
        self.received.fill(None);
    }

    /// Takes note of one chunk and tells which of the cut it is.
    ///
    /// # Errors
    /// It is corrupt, none of the vector's, or came before.
    pub fn add(&mut self, chunk: &Chunk) -> Result<usize, WireError> {
        let index = self.find(chunk)?;
        verify(chunk, crc32c(&chunk.values))?;
        self.note(index, chunk)
    }

    /// The same of one whose bytes are still to be looked at, with [`verify`].
    ///
    /// # Errors
    /// It is none of the vector's, or came before.
    pub fn add_unverified(&mut self, chunk: &Chunk) -> Result<usize, WireError> {
        self.note(self.find(chunk)?, chunk)
    }

    fn find(&self, chunk: &Chunk) -> Result<usize, WireError> {
        let value_bytes = self.wire.of(chunk.kind()).bytes();
        self.cut.find(chunk, value_bytes).ok_or(WireError::NoChunk {
            start: chunk.start,
            bytes: chunk.values.len(),
            len: self.cut.values().len(),
        })
    }

    fn note(&mut self, index: usize, chunk: &Chunk) -> Result<usize, WireError> {
        match self.received[index].replace(chunk.crc32c) {
            None => Ok(index),
            first => {
                self.received[index] = first;
                Err(WireError::Twice { start: chunk.start })
            }
        }
    }

    /// Tells vectors apart: a CRC32C over the chunks' checksums.
    pub fn digest(&self) -> u32 {
        let checksums = self.received.iter().flatten().flat_map(|checksum| checksum.to_le_bytes());
        crc32c(&checksums.collect::<Vec<u8>>())
    }

    /// Whether all is there.
    ///
    /// # Errors
    /// Values are missing.
    pub fn check_complete(&self) -> Result<(), WireError> {
        let ranges = self.cut.ranges().iter().zip(&self.received);
        let found = ranges.filter(|(_, crc)| crc.is_some()).map(|(range, _)| range.len()).sum();
        let len = self.cut.values().len();
        match found == len {
            true => Ok(()),
            false => Err(WireError::Incomplete { found, len }),
        }
    }
}

/// A flat vector that is being received.
#[derive(Clone, Debug)]
pub struct Assembly {
    values: Vec<f32>,
    arrivals: Arrivals,
}

impl Assembly {
    /// Receives a vector that is cut so into `buffer`, whose values do not matter, in a run whose
    /// format is `wire`.
    ///
    /// # Panics
    /// If `buffer` has another length.
    pub fn new(cut: Cut, wire: WireFormat, buffer: Vec<f32>) -> Self {
        assert_eq!(buffer.len(), cut.values().len(), "room for the vector");
        Self { values: buffer, arrivals: Arrivals::new(cut, wire) }
    }

    /// Takes one chunk in.
    ///
    /// # Errors
    /// As [`Arrivals::add`].
    pub fn add(&mut self, chunk: &Chunk) -> Result<(), WireError> {
        let index = self.arrivals.add(chunk)?;
        let (range, first) = (&self.arrivals.cut.ranges()[index], self.arrivals.cut.values().start);
        let format = self.arrivals.wire.of(chunk.kind());
        let values = &mut self.values[range.start - first..range.end - first];
        Values::new(&chunk.values, format).copy_to(values);
        Ok(())
    }

    /// As [`Arrivals::digest`].
    pub fn digest(&self) -> u32 {
        self.arrivals.digest()
    }

    /// The vector.
    ///
    /// # Errors
    /// Values are missing.
    pub fn finish(self) -> Result<Vec<f32>, WireError> {
        self.arrivals.check_complete()?;
        Ok(self.values)
    }
}
