//! A dataset: class folders of photos, indexed and fingerprinted, on disk or in a tar.
//!
//! Nothing here decodes an image. Whoever opens a dataset reads every byte of it once, and hashes
//! it: the fingerprint is never taken on another's word, and a later [`Dataset::read`] refuses
//! bytes that are not those that were hashed.

mod card;
mod folder;
mod listing;
mod split;
mod tar;

use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use card::CARD_FILE;
pub use split::{
    ClassCount, Ignored, Ratio, SplitError, SplitOptions, SplitReport, Transfer, split,
};

use crate::ids::SampleId;
use crate::job::Card;
use listing::{Listing, Source};

/// Largest image file; a larger one is refused when the dataset is opened.
pub const IMAGE_FILE_BYTES_MAX: u64 = 256 << 20;

/// Most memory that a compressed tar may unpack to: beyond that it belongs on disk.
pub const UNPACKED_BYTES_MAX: u64 = 8 << 30;

/// Training or validation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// What the weights learn from.
    Train,
    /// What evaluation counts on.
    Val,
}

/// One image file. Its index among the images of its split is its [`SampleId`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Path within the dataset, with `/`: `train/cat/1.jpg`.
    pub path: String,
    /// Index of its class in [`Dataset::classes`].
    pub label: u32,
    bytes: u64,
    source: Source,
    sha256: [u8; 32],
}

/// An indexed dataset. The images of a split are in byte order of their paths.
#[derive(Debug)]
pub struct Dataset {
    place: Place,
    train: Vec<Image>,
    val: Vec<Image>,
    ignored: u32,
    card: Card,
}

/// Where the bytes of a [`Dataset`] are read from.
#[derive(Debug)]
enum Place {
    Folder(PathBuf),
    Tar(File),
    /// A compressed tar, or files made in memory: each image holds its bytes.
    Memory,
}

/// Why a path is not a usable dataset.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // Each message says what its fields are.
pub enum DatasetError {
    #[error(
        "dataset {path}: no such file or folder; `data` (or --data) must name a folder with train/ \
         and val/, or a .tar, .tar.gz or .tgz of one"
    )]
    Missing { path: PathBuf },
    #[error("dataset {path}: neither a folder nor a .tar, .tar.gz or .tgz")]
    UnknownForm { path: PathBuf },
    #[error(
        "dataset {dataset}: has no {split}/ folder of class folders; make train/ and val/ from one \
         folder of class folders with `hw2 split SOURCE DEST`"
    )]
    NoSplit { dataset: String, split: Split },
    #[error(
        "dataset {dataset}: class folder {folder} holds no .jpg, .jpeg or .png file; add images, or \
         remove the class from train/ and val/"
    )]
    EmptyClass { dataset: String, folder: String },
    #[error(
        "dataset {dataset}: train/ and val/ must have the same class folders; only in train/: \
         {only_train:?}, only in val/: {only_val:?}"
    )]
    ClassesDiffer { dataset: String, only_train: Vec<String>, only_val: Vec<String> },
    #[error("dataset {dataset}: {found} class folder in train/, and a classifier needs at least 2")]
    TooFewClasses { dataset: String, found: usize },
    #[error("dataset {dataset}: the name {name} is not UTF-8; rename it")]
    NotUtf8 { dataset: String, name: String },
    #[error(
        "dataset {dataset}: image {image} has {bytes} bytes, more than the limit of \
         {IMAGE_FILE_BYTES_MAX}; shrink or remove it"
    )]
    ImageTooLarge { dataset: String, image: String, bytes: u64 },
    #[error("dataset {dataset}: image {image} is there twice; make the archive anew")]
    Duplicate { dataset: String, image: String },
    #[error(
        "dataset {dataset}: {image} is a link and has no content of its own; make the archive with \
         `tar --dereference --hard-dereference`"
    )]
    LinkInTar { dataset: String, image: String },
    #[error(
        "dataset {dataset}: unpacks to more than {UNPACKED_BYTES_MAX} bytes, which are held in \
         memory; use an uncompressed .tar or a folder"
    )]
    UnpackedTooLarge { dataset: String },
    #[error(
        "dataset {dataset}: train/ or val/ is there under two leading folders: {first}, {second}"
    )]
    TwoRoots { dataset: String, first: String, second: String },
    #[error(
        "dataset {dataset}: {CARD_FILE} speaks of other images (card: {card}; files: {files}); if \
         the images were changed on purpose, delete the card"
    )]
    CardDiffers { dataset: String, card: String, files: String },
    #[error("dataset card {path}: {problem}; make it anew with `hw2 split`, or name the dataset")]
    BadCard { path: PathBuf, problem: String },
    #[error("dataset {dataset}: cannot read {path}: {source}")]
    Unreadable { dataset: String, path: String, source: io::Error },
}

impl Dataset {
    /// Indexes and hashes the dataset at `path`: a folder with `train/` and `val/`, each of class
    /// folders of JPEG and PNG files, or a .tar, .tar.gz or .tgz of one (with or without one
    /// leading folder). Files that are no images by their extension are counted and ignored, and so
    /// is whatever lies in folders below a class; hidden ones are not looked at.
    ///
    /// A folder or a .tar is read again image by image; a compressed tar is held in memory.
    ///
    /// # Errors
    /// [`DatasetError`], among which is a [`CARD_FILE`] in the dataset that does not fit its
    /// images.
    pub fn open(path: &Path) -> Result<Self, DatasetError> {
        let kind = std::fs::metadata(path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => DatasetError::Missing { path: path.into() },
            _ => unreadable(&path.display().to_string(), ".", source),
        })?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        let (place, listing) = if kind.is_dir() {
            (Place::Folder(path.into()), folder::list(path)?)
        } else if name.ends_with(".tar") {
            let (file, listing) = tar::list(path)?;
            (Place::Tar(file), listing)
        } else if name.ends_with(".tar.gz") || name.ends_with(".tgz") {
            (Place::Memory, tar::unpack(path)?)
        } else {
            return Err(DatasetError::UnknownForm { path: path.into() });
        };
        Self::index(place, listing)
    }

    /// A dataset made in memory of (path, content), where a path is as in [`Image::path`]. `name`
    /// stands for it in errors.
    ///
    /// # Errors
    /// As [`Dataset::open`].
    pub fn from_files(
        name: &str,
        files: impl IntoIterator<Item = (String, Vec<u8>)>,
    ) -> Result<Self, DatasetError> {
        let mut listing = Listing::new(name);
        for (path, content) in files {
            listing.add_file(&path, content.len() as u64, None, || Ok(content))?;
        }
        Self::index(Place::Memory, listing)
    }

    /// What a server must know of it.
    pub fn card(&self) -> Card {
        self.card.clone()
    }

    /// Names of the classes in byte order.
    pub fn classes(&self) -> &[String] {
        &self.card.classes
    }

    /// SHA-256, in hex, over the sorted paths and the SHA-256 of each content. Where the images
    /// lie, and what else lies there, does not change it.
    pub fn fingerprint(&self) -> &str {
        &self.card.fingerprint
    }

    /// Number of entries of train/, val/ and the class folders that are no images.
    pub fn ignored(&self) -> u32 {
        self.ignored
    }

    /// The images of a split, in byte order of their paths.
    pub fn images(&self, split: Split) -> &[Image] {
        match split {
            Split::Train => &self.train,
            Split::Val => &self.val,
        }
    }

    /// The content of image `sample` of `split`.
    ///
    /// # Errors
    /// It cannot be read, or is no longer what it was when the dataset was opened.
    pub fn read(&self, split: Split, sample: SampleId) -> io::Result<Cow<'_, [u8]>> {
        let image = &self.images(split)[sample.0 as usize];
        let content = match (&self.place, &image.source) {
            (Place::Folder(root), Source::File) => std::fs::read(root.join(&image.path))?,
            (Place::Tar(file), &Source::Offset(start)) => {
                let mut content = vec![0; image.bytes as usize];
                file.read_exact_at(&mut content, start)?;
                content
            }
            (_, Source::Memory(content)) => return Ok(Cow::Borrowed(content)),
            (place, source) => unreachable!("{source:?} in {place:?}"),
        };
        if Sha256::digest(&content)[..] != image.sha256 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "its content has changed since the dataset was opened; start again",
            ));
        }
        Ok(Cow::Owned(content))
    }

    fn index(place: Place, listing: Listing) -> Result<Self, DatasetError> {
        let classes = listing.classes()?;
        let Listing { name, images, ignored, card: card_file, .. } = listing;
        let mut fingerprint = Sha256::new();
        let (mut train, mut val) = (Vec::new(), Vec::new());
        // A BTreeMap: byte order of the paths, train before val.
        for (path, entry) in images {
            fingerprint.update((path.len() as u64).to_le_bytes());
            fingerprint.update(path.as_bytes());
            fingerprint.update(entry.sha256);
            let label = classes.binary_search(&entry.class).expect("its class is listed") as u32;
            let images = if entry.split == Split::Train { &mut train } else { &mut val };
            let listing::Entry { bytes, source, sha256, .. } = entry;
            images.push(Image { path, label, bytes, source, sha256 });
        }
        let count = |images: &[Image]| u32::try_from(images.len()).expect("fewer than 2^32 images");
        let card = Card {
            classes,
            train: count(&train),
            val: count(&val),
            fingerprint: crate::hex(&fingerprint.finalize()),
        };
        if let Some(bytes) = card_file {
            card::check(&name, &bytes, &card)?;
        }
        let Card { train: train_count, val: val_count, .. } = card;
        tracing::info!(dataset = name, train_count, val_count, ignored, "indexed the dataset");
        Ok(Self { place, train, val, ignored, card })
    }
}

impl Image {
    /// Size of its file.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Split {
    /// The name of its folder.
    pub fn folder(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Val => "val",
        }
    }
}

impl std::fmt::Display for Split {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.folder())
    }
}

fn unreadable(dataset: &str, path: &str, source: io::Error) -> DatasetError {
    DatasetError::Unreadable { dataset: dataset.into(), path: path.into(), source }
}

#[cfg(test)]
mod tests;
