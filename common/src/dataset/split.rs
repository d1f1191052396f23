//! `hw2 split`: a folder of class folders becomes a dataset with train/ and val/.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::Serialize;

use super::folder::{entries, is_folder};
use super::listing::{is_image, split_of};
use super::{CARD_FILE, Dataset, DatasetError, Split};
use crate::job::Card;
use crate::rng::{Stream, permutation};

/// Parts that go to training and to validation: `4:1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Ratio {
    train: u32,
    val: u32,
}

/// How an image gets into the new dataset. The user's own files are never moved or changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Transfer {
    /// Its bytes are copied.
    #[default]
    Copy,
    /// Another name of the same file, on the same file system.
    Hardlink,
    /// A symbolic link to its absolute path.
    Symlink,
}

/// How to split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SplitOptions {
    /// Parts of each class.
    pub ratio: Ratio,
    /// Of the random choice.
    pub seed: u64,
    /// How the images get there.
    pub transfer: Transfer,
}

/// What a split made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SplitReport {
    /// In byte order of the classes.
    pub classes: Vec<ClassCount>,
    /// What else lies in the source and its class folders.
    pub ignored: Ignored,
    /// The new dataset's card, which lies in it too.
    pub card: Card,
}

/// What a split leaves out, by paths within the source, in byte order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Ignored {
    /// Folders in class folders: what is in them is not taken.
    pub folders: Vec<String>,
    /// Files that are no images, or lie in no class folder.
    pub files: Vec<String>,
}

/// The images of one class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClassCount {
    /// Name of the class.
    pub class: String,
    /// Training images.
    pub train: u32,
    /// Validation images.
    pub val: u32,
}

/// Why nothing was split. Nothing is left behind.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // Each message says what its fields are.
pub enum SplitError {
    #[error("ratio `{given}`: two whole numbers above 0 are needed, as in 4:1")]
    BadRatio { given: String },
    #[error("split source {path}: no such folder")]
    NoSource { path: PathBuf },
    #[error("split source {path}: has train/ and val/ already; use it as the dataset")]
    AlreadySplit { path: PathBuf },
    #[error("split source {path}: {found} class folder(s), and a classifier needs at least 2")]
    TooFewClasses { path: PathBuf, found: usize },
    #[error(
        "split source {path}: fewer than 2 images directly in class folder(s) {classes:?}; one image \
         cannot be both trained on and evaluated, so add images or take the folders out of \
         the source"
    )]
    TooFewImages { path: PathBuf, classes: Vec<String> },
    #[error("split destination {path}: exists and is no empty folder; name another")]
    DestinationInUse { path: PathBuf },
    #[error("split destination {path}: lies in the source {source_folder}; name another")]
    DestinationInSource { path: PathBuf, source_folder: PathBuf },
    #[error("cannot {action} {path}: {source}")]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error(transparent)]
    Dataset(#[from] DatasetError),
}

/// Splits the class folders in `source` into a new dataset at `dest`, which must not exist or be an
/// empty folder. Of each class, the first images of a random order of its names go to validation,
/// rounded to the nearest number but at least one; the rest go to training. The same names, ratio
/// and seed give the same split. All is made beside `dest` and renamed when it is whole.
///
/// # Errors
/// [`SplitError`]; `dest` is then untouched.
pub fn split(
    source: &Path,
    dest: &Path,
    options: &SplitOptions,
) -> Result<SplitReport, SplitError> {
    let source = fs::canonicalize(source)
        .ok()
        .filter(|path| path.is_dir())
        .ok_or_else(|| SplitError::NoSource { path: source.into() })?;
    let (classes, ignored) = list(&source)?;
    let parent = destination_parent(dest, &source)?;
    let staging = tempfile::Builder::new()
        .prefix(".hw2-split-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777))
        .tempdir_in(&parent)
        .map_err(io_error("make a folder in", &parent))?;

    let mut counts = Vec::new();
    for (class, index) in classes.iter().zip(0..) {
        let order = Stream::split(options.seed, index);
        counts.push(place_class(class, &order, options, &source, staging.path())?);
    }
    let card = Dataset::open(staging.path())?.card();
    card.write(&staging.path().join(CARD_FILE)).map_err(io_error("write the card of", dest))?;
    fs::rename(staging.path(), dest).map_err(io_error("rename the finished split to", dest))?;
    // Its folder has gone, so that dropping `staging` finds nothing to remove.
    Ok(SplitReport { classes: counts, ignored, card })
}

impl Ratio {
    /// Validation images among `images` of a class: at least one, and never all of two or more.
    fn val_of(self, images: u32) -> u32 {
        let [images, train, val] = [images, self.train, self.val].map(u64::from);
        let nearest = (2 * images * val + train + val) / (2 * (train + val));
        nearest.clamp(1, images - 1) as u32
    }
}

impl Default for Ratio {
    fn default() -> Self {
        Self { train: 4, val: 1 }
    }
}

impl FromStr for Ratio {
    type Err = SplitError;

    fn from_str(given: &str) -> Result<Self, SplitError> {
        let part = |text: &str| text.trim().parse().ok().filter(|&part: &u32| part > 0);
        given
            .split_once(':')
            .and_then(|(train, val)| Some(Self { train: part(train)?, val: part(val)? }))
            .ok_or_else(|| SplitError::BadRatio { given: given.into() })
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.train, self.val)
    }
}

impl Transfer {
    fn place(self, from: &Path, to: &Path) -> Result<(), SplitError> {
        match self {
            Self::Copy => fs::copy(from, to).map(|_| ()).map_err(io_error("copy", from)),
            // Of a link its target, as the other two do.
            Self::Hardlink => fs::canonicalize(from)
                .and_then(|from| fs::hard_link(from, to))
                .map_err(io_error("make a hard link (copy instead?) to", from)),
            Self::Symlink => {
                std::os::unix::fs::symlink(from, to).map_err(io_error("make a link to", from))
            }
        }
    }
}

/// A class folder of the source.
struct SourceClass {
    name: String,
    /// Paths within the source, in byte order.
    images: Vec<String>,
}

/// The classes in byte order, and what is left out.
fn list(source: &Path) -> Result<(Vec<SourceClass>, Ignored), SplitError> {
    let (mut classes, mut ignored) = (Vec::new(), Ignored::default());
    for name in entries(source, "")? {
        if !is_folder(source, &name)? {
            ignored.files.push(name);
            continue;
        }
        let mut images = Vec::new();
        for path in entries(source, &name)? {
            if is_folder(source, &path)? {
                ignored.folders.push(path);
            } else if is_image(&path) {
                images.push(path);
            } else {
                ignored.files.push(path);
            }
        }
        classes.push(SourceClass { name, images });
    }
    let path = source.to_owned();
    if classes.len() == 2 && classes.iter().all(|class| split_of(&class.name).is_some()) {
        return Err(SplitError::AlreadySplit { path });
    }
    if classes.len() < 2 {
        return Err(SplitError::TooFewClasses { path, found: classes.len() });
    }
    let few = classes.iter().filter(|class| class.images.len() < 2);
    let few: Vec<String> = few.map(|class| class.name.clone()).collect();
    if !few.is_empty() {
        return Err(SplitError::TooFewImages { path, classes: few });
    }
    Ok((classes, ignored))
}

/// Puts the images of one class into train/ and val/ of `dest`; `order` decides which go where.
fn place_class(
    class: &SourceClass,
    order: &Stream,
    options: &SplitOptions,
    source: &Path,
    dest: &Path,
) -> Result<ClassCount, SplitError> {
    let folder = |split: Split| dest.join(split.folder());
    for folder in [Split::Train, Split::Val].map(folder) {
        let folder = folder.join(&class.name);
        fs::create_dir_all(&folder).map_err(io_error("make", &folder))?;
    }
    let all = class.images.len() as u32;
    let val = options.ratio.val_of(all);
    for (rank, image) in (0..).zip(permutation(order, all)) {
        let split = if rank < val { Split::Val } else { Split::Train };
        let path = &class.images[image as usize];
        options.transfer.place(&source.join(path), &folder(split).join(path))?;
    }
    Ok(ClassCount { class: class.name.clone(), train: all - val, val })
}

/// The folder that will hold `dest`, which must exist.
fn destination_parent(dest: &Path, source: &Path) -> Result<PathBuf, SplitError> {
    let is_free = match fs::read_dir(dest) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    };
    if !is_free {
        return Err(SplitError::DestinationInUse { path: dest.into() });
    }
    let parent = dest.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    let action = "make a dataset in a folder that is not there; create it first:";
    let parent = fs::canonicalize(parent).map_err(io_error(action, parent))?;
    if parent.starts_with(source) {
        let (path, source_folder) = (dest.into(), source.into());
        return Err(SplitError::DestinationInSource { path, source_folder });
    }
    Ok(parent)
}

fn io_error<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> SplitError + 'a {
    move |source| SplitError::Io { action, path: path.into(), source }
}

#[cfg(test)]
mod tests;
