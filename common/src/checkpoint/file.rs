//! The bytes of one checkpoint: a safetensors file that any tool for that format reads.
//!
//! ```text
//! 8 bytes     length of the header, little-endian
//! header      {"__metadata__":{"checksum":"<64 digits>","hw2":"<JSON>"},"<tensor>":{..},..}
//! the rest    f32, little-endian: weights, moment1, moment2, ema, buffers, each one flat vector
//! ```
//!
//! The checksum is SHA-256 over the whole file with its own digits as zeros, so no bit is left out.

use std::fs::{File, Permissions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::folder::{PARTIAL, file_name, sync_folder};
use super::header::{self, CHECKSUM, HEADER_START, Vector};
use super::{Checkpoint, CheckpointError};
use crate::layout::ParamLayout;
use crate::state::{Flat, State, Vectors};

/// Bytes of the field that holds the header's length.
const LENGTH_BYTES: usize = 8;
/// A longer header is not read: no model has as many tensors, no dataset as many classes.
const HEADER_BYTES_MAX: u64 = 32 << 20;
/// Bytes that are converted, hashed and written at a time.
const CHUNK_BYTES: usize = 64 << 10;

impl Checkpoint {
    /// Writes it into `dir`, which exists, and returns the file's path. Takes no memory but for a
    /// header of some KiB.
    ///
    /// It is written aside, synced, renamed, and the folder synced: whatever happens meanwhile, a
    /// file under the final name is whole, and one that had this name before stays until then.
    ///
    /// # Errors
    /// When the file system refuses (a full disk, say); the file aside is then removed.
    ///
    /// # Panics
    /// When a vector's length is not the layout's, or a number of the progress is not finite.
    pub fn write(&self, dir: &Path) -> Result<PathBuf, CheckpointError> {
        let layout = self.layout();
        for vector in Vector::ALL {
            let (have, want) =
                (vector.of(&self.state.vectors).len(), vector.tensors(&layout).len());
            assert_eq!(have, want, "length of {}", vector.label());
        }
        let header = header::render(self, &layout, LENGTH_BYTES);
        let name = file_name(self.state.progress.global_step);
        let path = dir.join(&name);
        let mut aside = tempfile::Builder::new()
            .prefix(&format!(".{name}."))
            .suffix(PARTIAL)
            // As any program's new file: the umask decides who may read it.
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(dir)
            .map_err(CheckpointError::io("create a file in", dir))?;
        let written = self.write_to(aside.as_file_mut(), &header);
        written.map_err(CheckpointError::io("write", &path))?;
        aside.as_file().sync_all().map_err(CheckpointError::io("sync", &path))?;
        let renamed = aside.persist(&path).map_err(|refused| refused.error);
        renamed.map_err(CheckpointError::io("create", &path))?;
        sync_folder(dir)?;
        Ok(path)
    }

    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`CheckpointError::Damaged`] when any bit is not as written,
    /// [`CheckpointError::Unsupported`] when another program wrote it, [`CheckpointError::Io`] when
    /// it cannot be read.
    pub fn read(path: &Path) -> Result<Self, CheckpointError> {
        let mut file = File::open(path).map_err(CheckpointError::io("open", path))?;
        let (header, data_bytes) = read_verified(&mut file, path)?;
        // From here on the bytes are those of a writer: what is wrong now is its version.
        let content = header::parse(&header, data_bytes)
            .map_err(|what| CheckpointError::Unsupported { path: path.to_owned(), what })?;
        let vectors = read_vectors(&mut file, LENGTH_BYTES + header.len(), &content.layout)
            .map_err(CheckpointError::io("read", path))?;
        Ok(Self {
            build: content.build,
            job: content.job,
            numeric_kind: content.numeric_kind,
            state: State { progress: content.progress, vectors },
        })
    }

    fn write_to(&self, file: &mut File, header: &[u8]) -> io::Result<()> {
        let mut out = Hashing { file, hash: Sha256::new() };
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(header)?;
        for vector in Vector::ALL {
            write_le(vector.of(&self.state.vectors), &mut out)?;
        }
        let checksum = crate::hex(&out.hash.finalize());
        file.seek(SeekFrom::Start((LENGTH_BYTES + CHECKSUM.start) as u64))?;
        file.write_all(checksum.as_bytes())
    }
}

/// Writes `values` as little-endian f32.
pub(super) fn write_le(values: &[f32], out: &mut impl Write) -> io::Result<()> {
    let mut bytes = [0; CHUNK_BYTES];
    for values in values.chunks(CHUNK_BYTES / 4) {
        let bytes = &mut bytes[..values.len() * 4];
        for (place, value) in bytes.chunks_exact_mut(4).zip(values) {
            place.copy_from_slice(&value.to_le_bytes());
        }
        out.write_all(bytes)?;
    }
    Ok(())
}

/// Writes into a file and a hash at once.
struct Hashing<'a> {
    file: &'a mut File,
    hash: Sha256,
}

impl Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// The header, and the number of bytes after it, of a file whose checksum is right.
fn read_verified(file: &mut File, path: &Path) -> Result<(Vec<u8>, u64), CheckpointError> {
    let damaged = |what: String| CheckpointError::Damaged { path: path.to_owned(), what };
    let failed = |source| CheckpointError::io("read", path)(source);
    let file_bytes = file.metadata().map_err(failed)?.len();
    let least = (LENGTH_BYTES + CHECKSUM.end) as u64;
    if file_bytes < least {
        return Err(damaged(format!("{file_bytes} bytes are less than the {least} of any header")));
    }
    let mut length = [0; LENGTH_BYTES];
    file.read_exact(&mut length).map_err(failed)?;
    let header_bytes = u64::from_le_bytes(length);
    let header_bytes_max = HEADER_BYTES_MAX.min(file_bytes - LENGTH_BYTES as u64);
    if header_bytes < CHECKSUM.end as u64 || header_bytes > header_bytes_max {
        return Err(damaged(format!(
            "its header should have {header_bytes} bytes, the whole file has {file_bytes}"
        )));
    }
    let mut header = vec![0; header_bytes as usize];
    file.read_exact(&mut header).map_err(failed)?;
    if !header.starts_with(HEADER_START.as_bytes()) {
        return Err(damaged("its header does not begin as every one does".into()));
    }
    let expected = String::from_utf8_lossy(&header[CHECKSUM]).into_owned();
    header[CHECKSUM].fill(b'0');
    let mut hash = Sha256::new();
    hash.update(length);
    hash.update(&header);
    let data_bytes = io::copy(file, &mut hash).map_err(failed)?;
    let actual = crate::hex(&hash.finalize());
    match actual == expected {
        true => Ok((header, data_bytes)),
        false => Err(damaged(format!("its checksum should be {expected} and is {actual}"))),
    }
}

/// The vectors of a file whose tensors begin at byte `start`.
fn read_vectors(file: &mut File, start: usize, layout: &ParamLayout) -> io::Result<Vectors> {
    file.seek(SeekFrom::Start(start as u64))?;
    let mut next = |vector: Vector| read_le(file, vector.tensors(layout).len());
    Ok(Vectors {
        weights: next(Vector::Weights)?,
        moment1: next(Vector::Moment1)?,
        moment2: next(Vector::Moment2)?,
        ema: next(Vector::Ema)?,
        buffers: next(Vector::Buffers)?,
    })
}

fn read_le(file: &mut File, len: usize) -> io::Result<Flat> {
    let mut values = Vec::with_capacity(len);
    let mut bytes = [0; CHUNK_BYTES];
    while values.len() < len {
        let bytes = &mut bytes[..CHUNK_BYTES.min((len - values.len()) * 4)];
        file.read_exact(bytes)?;
        let floats = bytes.chunks_exact(4);
        values.extend(floats.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])));
    }
    Ok(Arc::new(values))
}
