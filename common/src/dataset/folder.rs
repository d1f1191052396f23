//! A dataset in a folder.

use std::fs;
use std::path::Path;

use super::listing::{Listing, Source, is_hidden};
use super::{CARD_FILE, DatasetError, Split, unreadable};

/// Lists and reads the dataset in the folder `root`. Links are followed.
///
/// # Errors
/// What cannot be read, by name; as [`Listing::add_file`].
pub(super) fn list(root: &Path) -> Result<Listing, DatasetError> {
    let mut listing = Listing::new(&root.display().to_string());
    if root.join(CARD_FILE).exists() {
        add_file(root, CARD_FILE, &mut listing)?;
    }
    for split in [Split::Train, Split::Val].map(Split::folder) {
        if !root.join(split).is_dir() {
            continue;
        }
        listing.add_folder(split);
        for class in entries(root, split)? {
            if !is_folder(root, &class)? {
                add_file(root, &class, &mut listing)?;
                continue;
            }
            listing.add_folder(&class);
            for file in entries(root, &class)? {
                add_file(root, &file, &mut listing)?;
            }
        }
    }
    Ok(listing)
}

/// Names of the entries of `folder` that are not hidden, each joined to it, in byte order.
///
/// # Errors
/// The folder cannot be read, or a name is not UTF-8.
pub(super) fn entries(root: &Path, folder: &str) -> Result<Vec<String>, DatasetError> {
    let dataset = root.display().to_string();
    let read = || -> std::io::Result<Vec<_>> {
        fs::read_dir(root.join(folder))?.map(|entry| Ok(entry?.file_name())).collect()
    };
    let mut names = Vec::new();
    for name in read().map_err(|source| unreadable(&dataset, folder, source))? {
        let name = name.into_string().map_err(|name| DatasetError::NotUtf8 {
            dataset: dataset.clone(),
            name: root.join(folder).join(name).display().to_string(),
        })?;
        if !is_hidden(&name) {
            names.push(if folder.is_empty() { name } else { format!("{folder}/{name}") });
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Whether `path` within `root` is a folder, or a link to one.
///
/// # Errors
/// That cannot be found out, as with a link to nothing.
pub(super) fn is_folder(root: &Path, path: &str) -> Result<bool, DatasetError> {
    let kind = fs::metadata(root.join(path));
    let kind = kind.map_err(|source| unreadable(&root.display().to_string(), path, source))?;
    Ok(kind.is_dir())
}

fn add_file(root: &Path, path: &str, listing: &mut Listing) -> Result<(), DatasetError> {
    let dataset = listing.name.clone();
    let file = root.join(path);
    let kind = fs::metadata(&file).map_err(|source| unreadable(&dataset, path, source))?;
    if !kind.is_file() {
        listing.ignored += 1;
        return Ok(());
    }
    listing.add_file(path, kind.len(), Some(Source::File), || {
        fs::read(&file).map_err(|source| unreadable(&dataset, path, source))
    })
}
