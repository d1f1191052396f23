//! Datasets in folders and archives, good and bad; cards.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::*;

/// Two classes; the contents are no images, which nothing here looks at.
const FILES: &[(&str, &str)] = &[
    ("train/cat/b.PNG", "one"),
    ("train/cat/a.jpg", "two"),
    ("train/dog/x.jpeg", "three"),
    ("val/cat/a.jpg", "four"),
    ("val/dog/y.jpg", "five"),
];

pub(super) fn fill(root: &Path, files: &[(&str, &str)]) {
    for (path, content) in files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
}

fn folder(files: &[(&str, &str)]) -> TempDir {
    let root = TempDir::new().unwrap();
    fill(root.path(), files);
    root
}

fn in_memory(files: &[(&str, &str)]) -> Result<Dataset, DatasetError> {
    let owned = files.iter().map(|(path, content)| (path.to_string(), content.as_bytes().to_vec()));
    Dataset::from_files("made in memory", owned)
}

fn tar(files: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = ::tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = ::tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, path, content.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn file(folder: &TempDir, name: &str, content: &[u8]) -> PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, content).unwrap();
    path
}

/// The message of an error, which must hold every one of `parts`.
pub(super) fn refused<T: std::fmt::Debug, E: std::fmt::Display>(
    result: Result<T, E>,
    parts: &[&str],
) {
    let message = result.expect_err("must be refused").to_string();
    for part in parts {
        assert!(message.contains(part), "`{message}` lacks `{part}`");
    }
}

fn prefixed(prefix: &str) -> Vec<(String, &'static str)> {
    FILES.iter().map(|(path, content)| (format!("{prefix}{path}"), *content)).collect()
}

fn borrowed<'a>(files: &'a [(String, &'static str)]) -> Vec<(&'a str, &'static str)> {
    files.iter().map(|(path, content)| (path.as_str(), *content)).collect()
}

#[test]
fn classes_and_images_are_in_byte_order() {
    let root = folder(FILES);
    let dataset = Dataset::open(root.path()).unwrap();
    assert_eq!(dataset.classes(), ["cat", "dog"]);
    let of = |split| -> Vec<(String, u32)> {
        dataset.images(split).iter().map(|image| (image.path.clone(), image.label)).collect()
    };
    let expect = |images: &[(&str, u32)]| -> Vec<(String, u32)> {
        images.iter().map(|(path, label)| (path.to_string(), *label)).collect()
    };
    assert_eq!(
        of(Split::Train),
        expect(&[("train/cat/a.jpg", 0), ("train/cat/b.PNG", 0), ("train/dog/x.jpeg", 1)])
    );
    assert_eq!(of(Split::Val), expect(&[("val/cat/a.jpg", 0), ("val/dog/y.jpg", 1)]));
    assert_eq!(*dataset.read(Split::Train, SampleId(0)).unwrap(), *b"two");
    assert_eq!(*dataset.read(Split::Val, SampleId(1)).unwrap(), *b"five");
    assert_eq!((dataset.card().train, dataset.card().val), (3, 2));
}

#[test]
fn every_form_of_one_dataset_has_one_card_and_the_same_bytes() {
    let root = folder(FILES);
    let expected = Dataset::open(root.path()).unwrap();
    let archives = TempDir::new().unwrap();
    let mut forms = vec![in_memory(FILES).unwrap()];
    let mut shuffled = FILES.to_vec();
    shuffled.reverse();
    for (index, prefix) in ["", "./", "photos/", "./photos/"].into_iter().enumerate() {
        let files = prefixed(prefix);
        let bytes = tar(&borrowed(&files));
        forms.push(Dataset::open(&file(&archives, &format!("{index}.tar"), &bytes)).unwrap());
        let gz = file(&archives, &format!("{index}.tar.GZ"), &gzip(&bytes));
        forms.push(Dataset::open(&gz).unwrap());
        forms
            .push(Dataset::open(&file(&archives, &format!("{index}.tgz"), &gzip(&bytes))).unwrap());
    }
    forms.push(Dataset::open(&file(&archives, "shuffled.tar", &tar(&shuffled))).unwrap());
    for form in &forms {
        assert_eq!(form.card(), expected.card());
        for split in [Split::Train, Split::Val] {
            for sample in (0..expected.images(split).len() as u32).map(SampleId) {
                let image =
                    |dataset: &Dataset| dataset.images(split)[sample.0 as usize].path.clone();
                assert_eq!(image(form), image(&expected));
                let read = |dataset: &Dataset| dataset.read(split, sample).unwrap().into_owned();
                assert_eq!(read(form), read(&expected));
            }
        }
    }
}

#[test]
fn the_fingerprint_changes_with_every_path_and_content_and_with_nothing_else() {
    let of = |files: &[(&str, &str)]| in_memory(files).unwrap().fingerprint().to_owned();
    let fingerprint = of(FILES);
    // By Python: h = sha256(); for path, content in sorted(FILES): h.update(pack("<Q", len(path)) +
    // path + sha256(content).digest()).
    assert_eq!(fingerprint, "e146901357d52e9573e46aebda1c4aaee04d8ef1b2a3b5cd02bf9e35dda2c4a2");
    for changed in 0..FILES.len() {
        let mut files = FILES.to_vec();
        files[changed].1 = "other";
        assert_ne!(of(&files), fingerprint);
        let renamed = FILES[changed].0.replace('.', "2.");
        let mut files = FILES.to_vec();
        files[changed].0 = &renamed;
        assert_ne!(of(&files), fingerprint);
    }
    let mut files = FILES.to_vec();
    files.extend([("train/notes.txt", "?"), ("train/cat/.hidden.jpg", "?"), ("README", "?")]);
    files.extend([("val/dog/deeper/z.jpg", "?"), ("val/dog/z.gif", "?")]);
    assert_eq!(of(&files), fingerprint);
}

#[test]
fn what_is_no_image_is_counted_and_what_is_hidden_is_not_seen() {
    let root = folder(FILES);
    let others = [("train/notes.txt", ""), ("train/cat/a.gif", ""), ("val/dog/in/z.jpg", "")];
    fill(root.path(), &others);
    fill(root.path(), &[("train/.git/a.jpg", ""), ("train/cat/._a.jpg", ""), (".x/a.jpg", "")]);
    let dataset = Dataset::open(root.path()).unwrap();
    assert_eq!((dataset.ignored(), dataset.images(Split::Train).len()), (3, 3));
    assert_eq!(in_memory(FILES).unwrap().card(), dataset.card());
}

#[test]
fn paths_that_hold_no_dataset_are_refused_by_name() {
    let root = TempDir::new().unwrap();
    refused(Dataset::open(&root.path().join("none")), &["none", "no such", "--data"]);
    let zip = file(&root, "photos.zip", b"");
    refused(Dataset::open(&zip), &["photos.zip", ".tar.gz"]);
    refused(Dataset::open(root.path()), &["no train/ folder", "hw2 split"]);
    let only_train: Vec<_> = FILES[..3].to_vec();
    refused(Dataset::open(folder(&only_train).path()), &["no val/ folder"]);
    fs::create_dir_all(root.path().join("train")).unwrap();
    fs::create_dir_all(root.path().join("val")).unwrap();
    refused(Dataset::open(root.path()), &["0 class folder"]);
}

#[test]
fn class_folders_that_differ_are_empty_or_too_few_are_refused_by_name() {
    let mut files = FILES.to_vec();
    files.extend([("train/newt/a.jpg", ""), ("val/owl/a.jpg", "")]);
    let parts = ["only in train/: [\"newt\"]", "only in val/: [\"owl\"]"];
    refused(in_memory(&files), &parts);
    refused(Dataset::open(folder(&files).path()), &parts);

    let root = folder(FILES);
    for split in ["train", "val"] {
        fs::create_dir_all(root.path().join(split).join("newt")).unwrap();
    }
    fill(root.path(), &[("train/newt/a.jpg", ""), ("val/newt/a.txt", "")]);
    refused(Dataset::open(root.path()), &["val/newt", "no .jpg, .jpeg or .png"]);

    refused(in_memory(&[("train/a/1.jpg", ""), ("val/a/1.jpg", "")]), &["1 class", "at least 2"]);
}

#[test]
fn one_training_image_is_enough_for_a_class() {
    let dataset = in_memory(FILES).unwrap();
    let dogs = dataset.images(Split::Train).iter().filter(|image| image.label == 1);
    assert_eq!(dogs.count(), 1);
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let root = folder(FILES);
    let link = root.path().join("val/cat/gone.jpg");
    std::os::unix::fs::symlink("/nowhere/at/all.jpg", &link).unwrap();
    refused(Dataset::open(root.path()), &["val/cat/gone.jpg", "No such file"]);
    fs::remove_file(&link).unwrap();

    let folder_loop = root.path().join("train/loop");
    std::os::unix::fs::symlink("loop", &folder_loop).unwrap();
    refused(Dataset::open(root.path()), &["train/loop"]);
    fs::remove_file(&folder_loop).unwrap();

    use std::os::unix::ffi::OsStrExt;
    let name = std::ffi::OsStr::from_bytes(b"caf\xe9.jpg");
    fs::write(root.path().join("train/cat").join(name), "").unwrap();
    refused(Dataset::open(root.path()), &["train/cat/caf", "not UTF-8"]);
}

#[test]
fn an_image_beyond_the_size_limit_is_named() {
    let root = folder(FILES);
    let huge = fs::File::create(root.path().join("train/cat/huge.jpg")).unwrap();
    huge.set_len(IMAGE_FILE_BYTES_MAX + 1).unwrap();
    refused(Dataset::open(root.path()), &["train/cat/huge.jpg", "268435457"]);
}

#[test]
fn broken_archives_are_refused() {
    let root = TempDir::new().unwrap();
    let whole = tar(FILES);
    let truncated = file(&root, "short.tar", &whole[..1024 + 100]);
    refused(Dataset::open(&truncated), &["short.tar"]);
    let packed = gzip(&whole);
    let truncated = file(&root, "short.tgz", &packed[..packed.len() / 2]);
    refused(Dataset::open(&truncated), &["short.tgz"]);
    let text = file(&root, "text.tar", &[b'x'; 2000]);
    refused(Dataset::open(&text), &["text.tar"]);

    let mut twice = FILES.to_vec();
    twice.push(FILES[0]);
    refused(Dataset::open(&file(&root, "twice.tar", &tar(&twice))), &["cat/b.PNG", "twice"]);

    let mut roots = FILES.to_vec();
    roots.push(("old/train/cat/b.jpg", ""));
    refused(Dataset::open(&file(&root, "roots.tar", &tar(&roots))), &["old/"]);

    let mut builder = ::tar::Builder::new(tar(FILES)[..FILES.len() * 1024].to_vec());
    let mut header = ::tar::Header::new_gnu();
    header.set_entry_type(::tar::EntryType::Symlink);
    header.set_size(0);
    builder.append_link(&mut header, "train/cat/link.jpg", "a.jpg").unwrap();
    let linked = file(&root, "linked.tar", &builder.into_inner().unwrap());
    refused(Dataset::open(&linked), &["train/cat/link.jpg", "--dereference"]);
}

#[test]
fn bytes_that_changed_after_opening_are_an_error() {
    let root = folder(FILES);
    let dataset = Dataset::open(root.path()).unwrap();
    fill(root.path(), &[("train/cat/a.jpg", "TWO")]);
    refused(dataset.read(Split::Train, SampleId(0)), &["has changed"]);
    fs::remove_file(root.path().join("train/cat/a.jpg")).unwrap();
    let gone = dataset.read(Split::Train, SampleId(0)).unwrap_err();
    assert_eq!(gone.kind(), io::ErrorKind::NotFound);
}

#[test]
fn a_card_is_written_read_and_compared_with_the_images() {
    let root = folder(FILES);
    let card = Dataset::open(root.path()).unwrap().card();
    let path = root.path().join(CARD_FILE);
    card.write(&path).unwrap();
    assert_eq!(Card::read(&path).unwrap(), card);
    assert_eq!(Card::of(&path).unwrap(), card);
    assert_eq!(Card::of(root.path()).unwrap(), card);

    fill(root.path(), &[("train/cat/new.jpg", "new")]);
    refused(Dataset::open(root.path()), &["3 + 2 images", "4 + 2 images", "delete the card"]);
    refused(Card::of(root.path()), &["4 + 2 images"]);
    fs::write(&path, "{").unwrap();
    refused(Dataset::open(root.path()), &[CARD_FILE, "EOF"]);
    let bytes = tar(&[("train/a/1.jpg", ""), ("p/dataset-card.json", "{}")]);
    refused(Dataset::open(&file(&root, "p.tar", &bytes)), &["p/"]);
}

#[test]
fn a_card_of_no_dataset_is_refused() {
    let root = TempDir::new().unwrap();
    let good = in_memory(FILES).unwrap().card();
    let check = |change: fn(&mut Card), part: &str| {
        let mut card = good.clone();
        change(&mut card);
        let path = root.path().join("card.json");
        card.write(&path).unwrap();
        refused(Card::read(&path), &["card.json", part]);
    };
    check(|card| card.classes.truncate(1), "1 classes");
    check(|card| card.classes.reverse(), "byte order");
    check(|card| card.classes[1] = card.classes[0].clone(), "distinct");
    check(|card| card.val = 1, "3 + 1 images");
    check(|card| card.fingerprint.truncate(63), "64 hexadecimal");
    check(|card| card.fingerprint.replace_range(..1, "G"), "64 hexadecimal");
    refused(Card::read(&root.path().join("none.json")), &["none.json", "No such file"]);
}
