//! What was found in a folder or an archive, before it is known to be a dataset.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest, Sha256};

use super::{CARD_FILE, DatasetError, IMAGE_FILE_BYTES_MAX, Split};

/// The entries of a dataset's tree. All is sorted, so the order of discovery does not matter.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// The dataset, for errors.
    pub(super) name: String,
    /// By path within the dataset.
    pub(super) images: BTreeMap<String, Entry>,
    /// Number of entries below train/ and val/ that are neither class folders nor images.
    pub(super) ignored: u32,
    /// Content of the [`CARD_FILE`].
    pub(super) card: Option<Vec<u8>>,
    splits: BTreeSet<Split>,
    class_folders: BTreeSet<(Split, String)>,
}

/// One image.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) split: Split,
    pub(super) class: String,
    pub(super) bytes: u64,
    pub(super) source: Source,
    pub(super) sha256: [u8; 32],
}

/// Where the bytes of an image are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// In the file of its path.
    File,
    /// In the archive, from this offset on.
    Offset(u64),
    /// Here.
    Memory(Vec<u8>),
}

impl Listing {
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Takes in the folder at `path` within the dataset.
    pub(super) fn add_folder(&mut self, path: &str) {
        match parts(path)[..] {
            [split] => drop(split_of(split).map(|split| self.splits.insert(split))),
            [split, class] if !is_hidden(class) => {
                if let Some(split) = split_of(split) {
                    self.add_class(split, class);
                }
            }
            _ => {}
        }
    }

    /// Takes in the file at `path` within the dataset. If that is an image or the card, `load`
    /// is called for its content; without a `source` the content is kept.
    ///
    /// # Errors
    /// Those of `load`; an image of more than `IMAGE_FILE_BYTES_MAX` or with the path of another.
    pub(super) fn add_file(
        &mut self,
        path: &str,
        bytes: u64,
        source: Option<Source>,
        load: impl FnOnce() -> Result<Vec<u8>, DatasetError>,
    ) -> Result<(), DatasetError> {
        let parts = parts(path);
        if parts.iter().any(|part| is_hidden(part)) {
            return Ok(());
        }
        if parts == [CARD_FILE] {
            self.card = Some(load()?);
            return Ok(());
        }
        let Some(split) = split_of(parts[0]) else { return Ok(()) };
        if let [_, class, _, ..] = parts[..] {
            self.add_class(split, class);
        }
        let &[_, class, file] = &parts[..] else {
            self.ignored += 1;
            return Ok(());
        };
        if !is_image(file) {
            self.ignored += 1;
            return Ok(());
        }
        let (dataset, image) = (self.name.clone(), path.to_owned());
        if bytes > IMAGE_FILE_BYTES_MAX {
            return Err(DatasetError::ImageTooLarge { dataset, image, bytes });
        }
        let content = load()?;
        let bytes = content.len() as u64;
        let sha256 = Sha256::digest(&content).into();
        let source = source.unwrap_or(Source::Memory(content));
        let entry = Entry { split, class: class.into(), bytes, source, sha256 };
        match self.images.insert(path.into(), entry) {
            Some(_) => Err(DatasetError::Duplicate { dataset, image }),
            None => Ok(()),
        }
    }

    /// The classes in byte order.
    ///
    /// # Errors
    /// No train/ or val/, class folders that differ between them or are empty, fewer than 2
    /// classes.
    pub(super) fn classes(&self) -> Result<Vec<String>, DatasetError> {
        let dataset = self.name.clone();
        if let Some(&split) = [Split::Train, Split::Val].iter().find(|s| !self.splits.contains(s)) {
            return Err(DatasetError::NoSplit { dataset, split });
        }
        let of = |split| -> BTreeSet<&String> {
            self.class_folders.iter().filter(|(s, _)| *s == split).map(|(_, class)| class).collect()
        };
        let (train, val) = (of(Split::Train), of(Split::Val));
        if train != val {
            let only = |a: &BTreeSet<&String>, b| a.difference(b).map(|&c| c.clone()).collect();
            let (only_train, only_val) = (only(&train, &val), only(&val, &train));
            return Err(DatasetError::ClassesDiffer { dataset, only_train, only_val });
        }
        let filled: BTreeSet<(Split, &String)> =
            self.images.values().map(|entry| (entry.split, &entry.class)).collect();
        let is_empty = |&&(split, ref class): &&(Split, String)| !filled.contains(&(split, class));
        if let Some((split, class)) = self.class_folders.iter().find(is_empty) {
            return Err(DatasetError::EmptyClass { dataset, folder: format!("{split}/{class}") });
        }
        if train.len() < 2 {
            return Err(DatasetError::TooFewClasses { dataset, found: train.len() });
        }
        Ok(train.into_iter().cloned().collect())
    }

    fn add_class(&mut self, split: Split, class: &str) {
        self.splits.insert(split);
        self.class_folders.insert((split, class.into()));
    }
}

/// The split whose folder has this name.
pub(super) fn split_of(folder: &str) -> Option<Split> {
    [Split::Train, Split::Val].into_iter().find(|split| split.folder() == folder)
}

/// Whether a name is that of a file or folder that is not looked at.
pub(super) fn is_hidden(name: &str) -> bool {
    name.starts_with('.')
}

/// Whether a file's extension is that of an image.
pub(super) fn is_image(file: &str) -> bool {
    let extension = file.rsplit_once('.').map_or("", |(_, extension)| extension);
    ["jpg", "jpeg", "png"].iter().any(|known| extension.eq_ignore_ascii_case(known))
}

fn parts(path: &str) -> Vec<&str> {
    path.split('/').collect()
}
