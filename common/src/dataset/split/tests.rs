//! Splits: what they hold, what they refuse, what they leave behind.

use std::fs;

use tempfile::TempDir;

use super::super::tests::{fill, refused};
use super::*;

fn source(counts: &[(&str, usize)]) -> TempDir {
    let root = TempDir::new().unwrap();
    for (class, count) in counts {
        fs::create_dir_all(root.path().join(class)).unwrap();
        for index in 0..*count {
            let path = root.path().join(format!("{class}/{index:03}.jpg"));
            fs::write(path, format!("{class} {index}")).unwrap();
        }
    }
    root
}

fn options(ratio: &str, seed: u64, transfer: Transfer) -> SplitOptions {
    SplitOptions { ratio: ratio.parse().unwrap(), seed, transfer }
}

fn four_to_one() -> SplitOptions {
    options("4:1", 1, Transfer::Copy)
}

fn names(dataset: &Path, split: &str, class: &str) -> Vec<String> {
    let folder = fs::read_dir(dataset.join(split).join(class)).unwrap();
    let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    let mut names: Vec<String> = folder.map(name).collect();
    names.sort_unstable();
    names
}

#[test]
fn a_split_holds_every_image_once_and_leaves_the_source_alone() {
    let from = source(&[("b", 20), ("a", 7), ("c", 2)]);
    fill(from.path(), &[("notes.txt", ""), ("a/x.gif", ""), ("a/.x.jpg", "")]);
    let out = TempDir::new().unwrap();
    for transfer in [Transfer::Copy, Transfer::Hardlink, Transfer::Symlink] {
        let dest = out.path().join(format!("{transfer:?}"));
        let report = split(from.path(), &dest, &options("4:1", 1, transfer)).unwrap();
        let count = |class: &str, train, val| ClassCount { class: class.into(), train, val };
        assert_eq!(report.classes, [count("a", 6, 1), count("b", 16, 4), count("c", 1, 1)]);
        assert_eq!((report.ignored.folders.len(), report.ignored.files.len()), (0, 2));
        for (class, all) in [("a", 7), ("b", 20), ("c", 2)] {
            let mut both = names(&dest, "train", class);
            both.extend(names(&dest, "val", class));
            both.sort_unstable();
            let expected: Vec<_> = (0..all).map(|index| format!("{index:03}.jpg")).collect();
            assert_eq!(both, expected);
        }
        let dataset = Dataset::open(&dest).unwrap();
        assert_eq!(dataset.card(), report.card);
        assert_eq!(Card::read(&dest.join(CARD_FILE)).unwrap(), report.card);
    }
    assert_eq!(fs::read(from.path().join("b/003.jpg")).unwrap(), b"b 3");
    assert_eq!(names(from.path(), "b", "").len(), 20);
}

#[test]
fn the_choice_is_that_of_the_seed() {
    let from = source(&[("a", 50), ("b", 50)]);
    let out = TempDir::new().unwrap();
    let val = |name: &str, seed| {
        let dest = out.path().join(name);
        split(from.path(), &dest, &options("4:1", seed, Transfer::Symlink)).unwrap();
        (names(&dest, "val", "a"), names(&dest, "val", "b"))
    };
    let first = val("first", 1);
    assert_eq!(first, val("again", 1));
    assert_ne!(first, val("other", 2));
    assert_ne!(first.0, first.1, "classes have orders of their own");
}

#[test]
fn ratios_round_to_the_nearest_and_leave_something_on_both_sides() {
    let of = |ratio: &str, images| ratio.parse::<Ratio>().unwrap().val_of(images);
    assert_eq!([2, 5, 7, 8, 12, 13].map(|images| of("4:1", images)), [1, 1, 1, 2, 2, 3]);
    assert_eq!((of("1:9", 10), of("1:9", 4), of("100:1", 10)), (9, 3, 1));
    for bad in ["4", "0:1", "4:0", "-4:1", "4:1:1", "a:b", ""] {
        refused(bad.parse::<Ratio>(), &[&format!("`{bad}`"), "4:1"]);
    }
    assert_eq!(Ratio::default().to_string().parse::<Ratio>().unwrap(), Ratio::default());
}

#[test]
fn bad_sources_and_destinations_are_refused_by_name_and_leave_nothing() {
    let from = source(&[("a", 5), ("b", 5)]);
    let out = TempDir::new().unwrap();
    let dest = out.path().join("dest");
    let refuse = |from: &Path, dest: &Path, parts: &[&str]| {
        refused(split(from, dest, &four_to_one()), parts);
    };
    refuse(&from.path().join("none"), &dest, &["none", "no such folder"]);
    refuse(source(&[("a", 5)]).path(), &dest, &["1 class folder", "at least 2"]);
    refuse(source(&[("train", 5), ("val", 5)]).path(), &dest, &["already"]);
    let few = source(&[("a", 5), ("b", 1), ("c", 0)]);
    refuse(few.path(), &dest, &["[\"b\", \"c\"]", "add images"]);
    refuse(from.path(), &from.path().join("dest"), &["lies in the source"]);
    refuse(from.path(), &out.path().join("no/dest"), &["create it first", "no"]);
    let link = from.path().join("a/gone.jpg");
    std::os::unix::fs::symlink("/nowhere.jpg", &link).unwrap();
    refuse(from.path(), &dest, &["a/gone.jpg", "No such file"]);
    fs::remove_file(link).unwrap();
    assert_eq!(fs::read_dir(out.path()).unwrap().count(), 0, "something was left behind");

    fill(&dest, &[("mine.txt", "keep")]);
    refuse(from.path(), &dest, &["dest", "no empty folder"]);
    assert_eq!(fs::read(dest.join("mine.txt")).unwrap(), b"keep");
    assert_eq!(fs::read_dir(out.path()).unwrap().count(), 1);
}

#[test]
fn an_empty_destination_is_taken_and_is_as_open_as_other_folders() {
    use std::os::unix::fs::PermissionsExt;
    let (from, out) = (source(&[("a", 5), ("b", 5)]), TempDir::new().unwrap());
    let (dest, other) = (out.path().join("dest"), out.path().join("other"));
    fs::create_dir(&dest).unwrap();
    fs::create_dir(&other).unwrap();
    split(from.path(), &dest, &four_to_one()).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&dest), mode(&other));
    assert!(Dataset::open(&dest).is_ok());
}
