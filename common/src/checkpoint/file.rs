//! The bytes of one checkpoint: a safetensors file that any tool for that format reads.
//!
//! ```text
//! 8 bytes     length of the header, little-endian
//! header      {"__metadata__":{"checksum":"<64 digits>","hw2":"<JSON>"},"<tensor>":{..},..}
//! the rest    f32, little-endian: weights, moment1, moment2, ema, buffers, each one flat vector
//! ```
//!
//! The checksum is SHA-256 over the whole file with its own digits as zeros, so no bit is left out.
//!
//! Where several servers have the vectors, each writes a file with its range of them. That of the
//! first is the checkpoint: it is written when all others are durable, and lists them with their
//! checksums.

use std::fs::{File, Permissions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::folder::{PARTIAL, file_name, part_name, sync_folder};
use super::header::{self, CHECKSUM, Content, HEADER_START, Vector};
use super::{Checkpoint, CheckpointError};
use crate::ids::GlobalStep;
use crate::shard::Shard;
use crate::state::{State, Vectors};

/// Bytes of the field that holds the header's length.
const LENGTH_BYTES: usize = 8;
/// A longer header is not read: no model has as many tensors, no dataset as many classes.
const HEADER_BYTES_MAX: u64 = 32 << 20;
/// Bytes that are converted, hashed and written at a time.
const CHUNK_BYTES: usize = 64 << 10;

/// A durable file with a range of the parameters' vectors, which belongs to a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartFile {
    /// Its name; it lies beside the checkpoint.
    pub file: String,
    /// Its first parameter.
    pub start: usize,
    /// After its last.
    pub end: usize,
    /// Of its bytes.
    pub checksum: String,
}

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
        self.write_with(dir, &[])
    }

    /// The same, but of the parameters' vectors it has only those before the first of `parts`,
    /// which are in `dir` already and have the rest.
    ///
    /// # Errors
    /// As [`Self::write`].
    ///
    /// # Panics
    /// As [`Self::write`].
    pub fn write_with(&self, dir: &Path, parts: &[PartFile]) -> Result<PathBuf, CheckpointError> {
        let layout = self.layout();
        let params = 0..parts.first().map_or(layout.params.len(), |part| part.start);
        let vectors = &self.state.vectors;
        for vector in Vector::OF_PARAMS {
            assert_eq!(vector.of(vectors).len(), params.len(), "length of {}", vector.label());
        }
        assert_eq!(vectors.buffers.len(), layout.buffers.len(), "length of the buffers");
        let header = header::render(self, &layout, &params, parts, LENGTH_BYTES);
        let name = file_name(self.state.progress.global_step);
        let (path, _) = write_file(dir, &name, &header, vectors)?;
        Ok(path)
    }

    /// Reads and checks a file, with those that belong to it.
    ///
    /// # Errors
    /// [`CheckpointError::Damaged`] when any bit is not as written,
    /// [`CheckpointError::Unsupported`] when another program wrote it, [`CheckpointError::Io`] when
    /// it cannot be read.
    pub fn read(path: &Path) -> Result<Self, CheckpointError> {
        let (content, vectors) = read(path, None)?;
        Ok(Self {
            build: content.build,
            job: content.job,
            numeric_kind: content.numeric_kind,
            state: State { progress: content.progress, vectors },
        })
    }
}

/// Writes the file of another shard than the first into `dir`: its `params` of the parameters'
/// `vectors` at `step`, as durably as [`Checkpoint::write`] does.
///
/// # Errors
/// When the file system refuses.
///
/// # Panics
/// When the lengths differ.
pub fn write_part(
    dir: &Path,
    step: GlobalStep,
    shard: Shard,
    params: Range<usize>,
    vectors: &Vectors,
) -> Result<PartFile, CheckpointError> {
    for vector in Vector::OF_PARAMS {
        assert_eq!(vector.of(vectors).len(), params.len(), "length of {}", vector.label());
    }
    let file = part_name(step, shard);
    let header = header::render_part(step, shard, &params, LENGTH_BYTES);
    let (_, checksum) = write_file(dir, &file, &header, vectors)?;
    Ok(PartFile { file, start: params.start, end: params.end, checksum })
}

/// The vectors of a checkpoint, but of those of parameters only the range `params`.
///
/// # Errors
/// As [`Checkpoint::read`].
///
/// # Panics
/// When there are not as many parameters.
pub fn read_range(path: &Path, params: Range<usize>) -> Result<Vectors, CheckpointError> {
    Ok(read(path, Some(params))?.1)
}

/// Returns the path and the checksum.
fn write_file(
    dir: &Path,
    name: &str,
    header: &[u8],
    vectors: &Vectors,
) -> Result<(PathBuf, String), CheckpointError> {
    let path = dir.join(name);
    let mut aside = tempfile::Builder::new()
        .prefix(&format!(".{name}."))
        .suffix(PARTIAL)
        // As any program's new file: the umask decides who may read it.
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(dir)
        .map_err(CheckpointError::io("create a file in", dir))?;
    let written = write_to(aside.as_file_mut(), header, vectors);
    let checksum = written.map_err(CheckpointError::io("write", &path))?;
    aside.as_file().sync_all().map_err(CheckpointError::io("sync", &path))?;
    let renamed = aside.persist(&path).map_err(|refused| refused.error);
    renamed.map_err(CheckpointError::io("create", &path))?;
    sync_folder(dir)?;
    Ok((path, checksum))
}

fn write_to(file: &mut File, header: &[u8], vectors: &Vectors) -> io::Result<String> {
    let mut out = Hashing { file, hash: Sha256::new() };
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(header)?;
    for vector in Vector::ALL {
        write_le(vector.of(vectors), &mut out)?;
    }
    let checksum = crate::hex(&out.hash.finalize());
    file.seek(SeekFrom::Start((LENGTH_BYTES + CHECKSUM.start) as u64))?;
    file.write_all(checksum.as_bytes())?;
    Ok(checksum)
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

/// A file whose checksum is right.
struct Verified {
    file: File,
    header: Vec<u8>,
    data_bytes: u64,
    checksum: String,
}

impl Verified {
    fn open(path: &Path) -> Result<Self, CheckpointError> {
        let damaged = |what: String| CheckpointError::Damaged { path: path.to_owned(), what };
        let failed = |source| CheckpointError::io("read", path)(source);
        let mut file = File::open(path).map_err(CheckpointError::io("open", path))?;
        let file_bytes = file.metadata().map_err(failed)?.len();
        let least = (LENGTH_BYTES + CHECKSUM.end) as u64;
        if file_bytes < least {
            return Err(damaged(format!(
                "{file_bytes} bytes are less than the {least} of any header"
            )));
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
        let data_bytes = io::copy(&mut file, &mut hash).map_err(failed)?;
        let checksum = crate::hex(&hash.finalize());
        match checksum == expected {
            true => Ok(Self { file, header, data_bytes, checksum }),
            false => Err(damaged(format!("its checksum should be {expected} and is {checksum}"))),
        }
    }

    /// Adds those of `wanted` that this file has, of `params`, to the vectors of parameters.
    fn read_params(
        &mut self,
        params: &Range<usize>,
        wanted: &Range<usize>,
        vectors: &mut [Vec<f32>; 4],
    ) -> io::Result<()> {
        let wanted = wanted.start.max(params.start)..wanted.end.min(params.end);
        for (place, vector) in vectors.iter_mut().enumerate() {
            let before = place * params.len() + wanted.start.saturating_sub(params.start);
            self.read_values(before, wanted.len(), vector)?;
        }
        Ok(())
    }

    /// Adds `count` values, `before` which there are as many others, to `values`.
    fn read_values(
        &mut self,
        before: usize,
        count: usize,
        values: &mut Vec<f32>,
    ) -> io::Result<()> {
        let start = LENGTH_BYTES + self.header.len() + before * size_of::<f32>();
        self.file.seek(SeekFrom::Start(start as u64))?;
        let mut bytes = [0; CHUNK_BYTES];
        let mut left = count;
        while left > 0 {
            let bytes = &mut bytes[..CHUNK_BYTES.min(left * 4)];
            self.file.read_exact(bytes)?;
            let floats = bytes.chunks_exact(4);
            values.extend(floats.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])));
            left -= bytes.len() / 4;
        }
        Ok(())
    }
}

/// Reads a checkpoint, of its vectors of parameters all or the range `params`.
fn read(path: &Path, params: Option<Range<usize>>) -> Result<(Content, Vectors), CheckpointError> {
    let mut main = Verified::open(path)?;
    // From here on the bytes are those of a writer: what is wrong now is its version.
    let content = header::parse(&main.header, main.data_bytes)
        .map_err(|what| CheckpointError::Unsupported { path: path.to_owned(), what })?;
    let wanted = params.unwrap_or(0..content.layout.params.len());
    let mut vectors = [(); 4].map(|()| Vec::with_capacity(wanted.len()));
    let mut buffers = Vec::new();
    main.read_params(&content.params, &wanted, &mut vectors)
        .and_then(|()| {
            let before = 4 * content.params.len();
            main.read_values(before, content.layout.buffers.len(), &mut buffers)
        })
        .map_err(CheckpointError::io("read", path))?;
    for part in &content.parts {
        read_part(path, part, &wanted, &mut vectors)?;
    }
    let [weights, moment1, moment2, ema] = vectors.map(Arc::new);
    assert_eq!(weights.len(), wanted.len(), "parameters of the checkpoint");
    let vectors = Vectors { weights, moment1, moment2, ema, buffers: Arc::new(buffers) };
    Ok((content, vectors))
}

/// Adds those of `wanted` that a part has. One that is not as it was makes the checkpoint damaged.
fn read_part(
    checkpoint: &Path,
    part: &PartFile,
    wanted: &Range<usize>,
    vectors: &mut [Vec<f32>; 4],
) -> Result<(), CheckpointError> {
    let PartFile { file, start, end, checksum } = part;
    if *end <= wanted.start || wanted.end <= *start {
        return Ok(());
    }
    let path = checkpoint.with_file_name(file);
    let damaged = |what| CheckpointError::Damaged { path: checkpoint.to_owned(), what };
    let mut verified = match Verified::open(&path) {
        Err(error) if error.is_not_found() => {
            return Err(damaged(format!("its part {file} is not beside it")));
        }
        Err(CheckpointError::Damaged { what, .. }) => {
            return Err(damaged(format!("its part {file}: {what}")));
        }
        opened => opened?,
    };
    let found = &verified.checksum;
    if found != checksum {
        return Err(damaged(format!(
            "the checksum of its part {file} should be {checksum} and is {found}"
        )));
    }
    let read = verified.read_params(&(*start..*end), wanted, vectors);
    read.map_err(CheckpointError::io("read", &path))
}
