//! The dataset card: all that a server must know of a dataset whose images it need not see.

use std::fs;
use std::io::Write;
use std::path::Path;

use super::{Dataset, DatasetError};
use crate::job::Card;

/// Name of the card's file, in the dataset's folder beside train/ and val/.
pub const CARD_FILE: &str = "dataset-card.json";

impl Card {
    /// The card of what lies at `path`: a card file (by its extension, .json), or a dataset, which
    /// is then read whole.
    ///
    /// # Errors
    /// As [`Card::read`] and [`Dataset::open`].
    pub fn of(path: &Path) -> Result<Self, DatasetError> {
        if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json")) {
            return Self::read(path);
        }
        Ok(Dataset::open(path)?.card)
    }

    /// Reads a card file.
    ///
    /// # Errors
    /// It is not there, or is not the card of any dataset.
    pub fn read(path: &Path) -> Result<Self, DatasetError> {
        let bad = |problem| DatasetError::BadCard { path: path.into(), problem };
        parse(&fs::read(path).map_err(|error| bad(error.to_string()))?).map_err(bad)
    }

    /// Writes a card file: beside it, synced, then renamed.
    ///
    /// # Errors
    /// It cannot be written; a file that was there stays as it was.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let mut file = tempfile::Builder::new()
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666))
            .tempfile_in(folder.unwrap_or(Path::new(".")))?;
        serde_json::to_writer_pretty(&mut file, self)?;
        file.write_all(b"\n")?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(())
    }
}

/// Compares the card file in a dataset with the card made from its images.
///
/// # Errors
/// They differ, or the file is no card.
pub(super) fn check(dataset: &str, file: &[u8], made: &Card) -> Result<(), DatasetError> {
    let found = parse(file).map_err(|problem| {
        let path = Path::new(dataset).join(CARD_FILE);
        DatasetError::BadCard { path, problem }
    })?;
    if found == *made {
        return Ok(());
    }
    let (card, files) = (summary(&found), summary(made));
    Err(DatasetError::CardDiffers { dataset: dataset.into(), card, files })
}

fn summary(card: &Card) -> String {
    let Card { classes, train, val, fingerprint } = card;
    format!("{} classes, {train} + {val} images, fingerprint {fingerprint}", classes.len())
}

fn parse(bytes: &[u8]) -> Result<Card, String> {
    let card: Card = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let classes = card.classes.len();
    let is_hex = card.fingerprint.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if classes < 2 {
        Err(format!("{classes} classes, and a classifier needs at least 2"))
    } else if !card.classes.is_sorted_by(|a, b| a < b) {
        Err("its classes are not in byte order, or not distinct".into())
    } else if (card.train as usize) < classes || (card.val as usize) < classes {
        Err(format!("{} + {} images cannot fill {classes} classes", card.train, card.val))
    } else if card.fingerprint.len() != 64 || !is_hex {
        Err(format!("fingerprint `{}` is not 64 hexadecimal digits", card.fingerprint))
    } else {
        Ok(card)
    }
}
