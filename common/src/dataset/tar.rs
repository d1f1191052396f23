//! A dataset in a tar.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;

use super::listing::{Listing, Source, is_image, split_of};
use super::{CARD_FILE, DatasetError, UNPACKED_BYTES_MAX, unreadable};

/// Lists the .tar at `path`; the images stay there, to be read from the returned file.
///
/// # Errors
/// Not a readable tar; as [`Listing::add_file`].
pub(super) fn list(path: &Path) -> Result<(File, Listing), DatasetError> {
    let name = path.display().to_string();
    let open = || File::open(path).map_err(|source| unreadable(&name, ".", source));
    let buffered = BufReader::with_capacity(1 << 20, open()?);
    let listing = walk(&name, buffered, |start| Some(Source::Offset(start)))?;
    Ok((open()?, listing))
}

/// Unpacks the images of the compressed tar at `path` into memory.
///
/// # Errors
/// Not a readable .tar.gz, or more than [`UNPACKED_BYTES_MAX`] of it; as [`Listing::add_file`].
pub(super) fn unpack(path: &Path) -> Result<Listing, DatasetError> {
    let name = path.display().to_string();
    let file = File::open(path).map_err(|source| unreadable(&name, ".", source))?;
    walk(&name, MultiGzDecoder::new(BufReader::new(file)), |_| None)
}

/// Lists the entries of a tar. `source` tells where an image stays that begins at an offset of
/// it; none keeps its content.
fn walk(
    name: &str,
    reader: impl Read,
    source: impl Fn(u64) -> Option<Source>,
) -> Result<Listing, DatasetError> {
    let mut listing = Listing::new(name);
    let mut leading = None;
    let mut in_memory = 0;
    let mut archive = ::tar::Archive::new(reader);
    let broken = |error| unreadable(name, "the archive", error);
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let full = String::from_utf8(entry.path_bytes().into_owned()).map_err(|error| {
            let name_in_tar = String::from_utf8_lossy(error.as_bytes()).into_owned();
            DatasetError::NotUtf8 { dataset: name.into(), name: name_in_tar }
        })?;
        let Some(path) = within_dataset(name, &full, &mut leading)? else { continue };
        let kind = entry.header().entry_type();
        if kind.is_dir() {
            listing.add_folder(&path);
        } else if kind.is_file() {
            let bytes = entry.size();
            let source = source(entry.raw_file_position());
            in_memory += if source.is_none() { bytes } else { 0 };
            if in_memory > UNPACKED_BYTES_MAX {
                return Err(DatasetError::UnpackedTooLarge { dataset: name.into() });
            }
            listing.add_file(&path, bytes, source, || {
                let mut content = Vec::new();
                entry.read_to_end(&mut content).map_err(|error| unreadable(name, &path, error))?;
                Ok(content)
            })?;
        } else if is_image(&path) {
            return Err(DatasetError::LinkInTar { dataset: name.into(), image: path });
        }
    }
    Ok(listing)
}

/// The path within the dataset of an entry of the tar: without a leading folder, which must be the
/// same for all. None for what lies outside of train/ and val/ and is no card.
fn within_dataset(
    dataset: &str,
    full: &str,
    leading: &mut Option<String>,
) -> Result<Option<String>, DatasetError> {
    let parts: Vec<&str> = full.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    let begins = |part: &str| split_of(part).is_some() || part == CARD_FILE;
    let Some(depth) = parts.iter().take(2).position(|part| begins(part)) else { return Ok(None) };
    let root = parts[..depth].concat();
    let first = leading.get_or_insert_with(|| root.clone());
    if *first != root {
        let (first, second) = (format!("{first}/"), format!("{root}/"));
        return Err(DatasetError::TwoRoots { dataset: dataset.into(), first, second });
    }
    Ok(Some(parts[depth..].join("/")))
}
