//! Which images a batch holds, whoever makes it and when.

use hw2_common::config::Config;
use hw2_common::dataset::Split;
use hw2_common::ids::{Epoch, GlobalStep, ReplicaId, SampleId};
use hw2_common::model::ModelSpec;
use hw2_common::rng::{Stream, permutation};
use image::{Rgb, RgbImage};

use super::super::tests::{jpeg, png};
use super::*;

const SIZE: usize = 12;
const PIXELS: usize = SIZE * SIZE * 3;

/// A picture that is no other's.
fn picture(index: u32) -> RgbImage {
    let value = |x: u32, y: u32| (x * (index % 7 + 3) + y * (index / 7 + 2) + index * 31) as u8;
    RgbImage::from_fn(33, 20 + index % 3, |x, y| Rgb([value(x, y), value(y, x), x as u8]))
}

/// `train` classes with one training image each, so that a label says which image it was, and
/// two validation images each. Those whose index is in `bad` are no images.
fn files(train: u32, bad: &[u32]) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    for index in 0..train {
        let image = if index % 2 == 0 { jpeg(picture(index)) } else { png(picture(index)) };
        let file = if bad.contains(&index) { b"no image".to_vec() } else { image };
        files.push((format!("train/{index:03}/only.jpg"), file.clone()));
        files.push((format!("val/{index:03}/a.png"), file));
        files.push((format!("val/{index:03}/b.png"), png(picture(index + 100))));
    }
    files
}

fn dataset(train: u32, bad: &[u32]) -> Arc<Dataset> {
    Arc::new(Dataset::from_files("test", files(train, bad)).unwrap())
}

fn job(dataset: &Dataset, replicas: u32, batch_size: u32) -> Job {
    let mut config = Config { replicas, batch_size, ..Config::default() };
    config.model = ModelSpec { image_size: SIZE, ..ModelSpec::default() };
    (config.images.short_side, config.images.crop_min, config.images.crop_max) = (16, 13, 16);
    config.cluster.image_cache_mib = 1;
    Job { config, dataset: dataset.card() }
}

fn loader(dataset: &Arc<Dataset>, replicas: u32, batch_size: u32) -> Loader {
    Loader::new(&job(dataset, replicas, batch_size), Arc::clone(dataset), 2, Form::Finished)
        .unwrap()
}

fn values(batch: &Batch) -> &[f32] {
    match &batch.pixels {
        Pixels::Finished(values) => values,
        Pixels::Photos(_) => panic!("not finished"),
    }
}

fn at(step: u64, replica: u32) -> Assignment {
    Assignment { step: GlobalStep(step), replica: ReplicaId(replica) }
}

fn order(epoch: u64, train: u32) -> Vec<u32> {
    permutation(&Stream::permutation(Config::default().seed, Epoch(epoch)), train)
}

#[test]
fn each_image_comes_once_per_epoch_and_batches_run_on_over_its_end() {
    let dataset = dataset(11, &[]);
    let loader = loader(&dataset, 2, 4);
    let names = (0..11).flat_map(|step| [at(step, 0), at(step, 1)]);
    let batches: Vec<Batch> = names.map(|name| loader.batch(name).unwrap()).collect();
    assert!(batches.iter().all(|batch| values(batch).len() == 4 * PIXELS));
    let labels: Vec<u32> = batches.into_iter().flat_map(|batch| batch.labels).collect();
    // 11 steps of 8 images are 8 epochs of 11.
    let expected: Vec<u32> = (0..8).flat_map(|epoch| order(epoch, 11)).collect();
    assert_eq!(labels, expected);
}

#[test]
fn a_batch_larger_than_the_dataset_holds_several_epochs() {
    let batch = loader(&dataset(3, &[]), 1, 20).batch(at(0, 0)).unwrap();
    let expected: Vec<u32> = (0..7).flat_map(|epoch| order(epoch, 3)).take(20).collect();
    assert_eq!(batch.labels, expected);
}

#[test]
fn an_image_is_augmented_anew_in_each_epoch() {
    let dataset = dataset(4, &[]);
    let loader = loader(&dataset, 1, 4);
    let of_class_0 = |step| {
        let batch = loader.batch(at(step, 0)).unwrap();
        let index = batch.labels.iter().position(|&label| label == 0).unwrap();
        values(&batch)[index * PIXELS..][..PIXELS].to_vec()
    };
    assert_ne!(of_class_0(0), of_class_0(1));
    assert_eq!(of_class_0(0), of_class_0(0));
}

#[test]
fn photos_become_the_images_that_other_devices_get() {
    let dataset = dataset(9, &[4]);
    let finished = loader(&dataset, 1, 7);
    let photos = Loader::new(&job(&dataset, 1, 7), Arc::clone(&dataset), 2, Form::Photos).unwrap();
    for name in [at(0, 0), at(1, 0)] {
        let (batch, expected) = (photos.batch(name).unwrap(), finished.batch(name).unwrap());
        assert!(matches!(&batch.pixels, Pixels::Photos(photos) if photos.len() == 7));
        let pixels = Pixels::Finished(batch.pixels.finish(SIZE));
        assert_eq!(Batch { pixels, ..batch }, expected);
    }
    let block = BlockId(0);
    assert_eq!(photos.eval_block(block).unwrap(), finished.eval_block(block).unwrap());
}

#[test]
fn threads_cache_and_prefetching_change_no_bit() {
    let dataset = dataset(13, &[5]);
    let names: Vec<Assignment> = (0..9).map(|step| at(step, 0)).collect();
    let blocks: Vec<BlockId> = (0..4).map(BlockId).collect();
    let reference = loader(&dataset, 1, 8);
    let expected: Vec<Batch> = names.iter().map(|&name| reference.batch(name).unwrap()).collect();
    let evaluated: Vec<Batch> = blocks.iter().map(|&b| reference.eval_block(b).unwrap()).collect();
    for threads in [1, 2, 3, 7] {
        for image_cache_mib in [0, 1] {
            let mut job = job(&dataset, 1, 8);
            job.config.cluster.image_cache_mib = image_cache_mib;
            let loader = Loader::new(&job, Arc::clone(&dataset), threads, Form::Finished).unwrap();
            // More than are kept ahead, some twice, and asked for in another order.
            for &name in names.iter().rev().chain(&names[..3]) {
                loader.prefetch(name);
            }
            loader.prefetch_eval(blocks[1]);
            for (&block, expected) in blocks.iter().zip(&evaluated) {
                assert_eq!(loader.eval_block(block).unwrap(), *expected);
            }
            for (&name, expected) in names.iter().zip(&expected) {
                loader.prefetch(at(name.step.0 + 1, 0));
                assert_eq!(loader.batch(name).unwrap(), *expected);
            }
        }
    }
}

#[test]
fn prefetching_is_bounded() {
    let dataset = dataset(6, &[]);
    let loader = loader(&dataset, 1, 2);
    for step in 0..20 {
        loader.prefetch(at(step, 0));
        loader.prefetch(at(step, 0));
    }
    let kept = |loader: &Loader| -> Vec<Work> {
        lock(&loader.ahead).iter().map(|ahead| ahead.making.work).collect()
    };
    let newest: Vec<Work> = (16..20).map(|step| Work::Train(at(step, 0))).collect();
    assert_eq!(kept(&loader), newest);
    loader.batch(at(17, 0)).unwrap();
    loader.batch(at(3, 0)).unwrap();
    assert_eq!(kept(&loader).len(), 3);
}

#[test]
fn evaluation_blocks_hold_each_image_once_in_index_order() {
    let dataset = dataset(5, &[]);
    let loader = loader(&dataset, 3, 4);
    let blocks: Vec<Batch> = (0..3).map(|b| loader.eval_block(BlockId(b)).unwrap()).collect();
    let labels: Vec<u32> = blocks.iter().flat_map(|block| block.labels.clone()).collect();
    assert_eq!(labels, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]);
    assert_eq!(values(&blocks[2]).len(), 2 * PIXELS);
    let config = job(&dataset, 3, 4).config;
    let file = dataset.read(Split::Val, SampleId(9)).unwrap();
    let last = super::super::eval_image(&file, &config.images, SIZE).unwrap();
    assert_eq!(values(&blocks[2])[PIXELS..], last);
}

#[test]
fn bad_training_images_are_named_and_replaced_by_the_next_in_the_permutation() {
    let order = order(0, 9);
    // The first two places of the epoch, and the last.
    let bad = [order[0], order[1], order[8]];
    let batch = loader(&dataset(9, &bad), 1, 9).batch(at(0, 0)).unwrap();
    let good = loader(&dataset(9, &[]), 1, 9).batch(at(0, 0)).unwrap();
    let mut expected = order.clone();
    expected[..2].fill(order[2]);
    expected[8] = order[2];
    assert_eq!(batch.labels, expected);
    let path = |class: u32| format!("train/{class:03}/only.jpg");
    assert_eq!(batch.bad_images, bad.map(path));
    // The others are what they would have been, and a replacement is not its model's twin.
    assert_eq!(values(&batch)[2 * PIXELS..8 * PIXELS], values(&good)[2 * PIXELS..8 * PIXELS]);
    let image = |place: usize| &values(&batch)[place * PIXELS..][..PIXELS];
    assert_ne!(image(0), image(2));
    assert_ne!(image(1), image(0));
}

#[test]
fn bad_validation_images_are_named_and_replaced_by_the_next_index() {
    let loader = loader(&dataset(3, &[0, 2]), 1, 6);
    let batch = loader.eval_block(BlockId(0)).unwrap();
    assert_eq!(batch.labels, [0, 0, 1, 1, 2, 2]);
    assert_eq!(batch.bad_images, ["val/000/a.png", "val/002/a.png"]);
    assert_eq!(values(&batch)[..PIXELS], values(&batch)[PIXELS..2 * PIXELS]);
    assert_eq!(loader.eval_block(BlockId(0)).unwrap(), batch, "the verdict is kept");
}

#[test]
fn without_any_good_image_there_is_no_batch() {
    let loader = loader(&dataset(2, &[0, 1]), 1, 2);
    let error = loader.batch(at(0, 0)).unwrap_err();
    assert!(matches!(error, DataError::NothingDecodable { split: Split::Train }), "{error}");
    assert!(loader.eval_block(BlockId(0)).is_ok(), "b.png of each class is good");
}

#[test]
fn a_file_that_cannot_be_read_is_no_bad_image() {
    let root = tempfile::TempDir::new().unwrap();
    for (path, content) in files(4, &[]) {
        let path = root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    let dataset = Arc::new(Dataset::open(root.path()).unwrap());
    let image = root.path().join("train/002/only.jpg");
    let content = std::fs::read(&image).unwrap();
    std::fs::remove_file(&image).unwrap();
    let loader = loader(&dataset, 1, 4);
    let error = loader.batch(at(0, 0)).unwrap_err().to_string();
    assert!(error.contains("train/002/only.jpg") && error.contains("No such file"), "{error}");
    std::fs::write(&image, "changed").unwrap();
    let error = loader.batch(at(0, 0)).unwrap_err().to_string();
    assert!(error.contains("train/002/only.jpg") && error.contains("has changed"), "{error}");
    // Whoever tries again after the disk came back gets the batch.
    std::fs::write(&image, content).unwrap();
    assert!(loader.batch(at(0, 0)).unwrap().bad_images.is_empty());
}
