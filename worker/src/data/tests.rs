//! Pictures for the tests of this folder, and the recipe from file to input image as a whole.

use std::io::Cursor;

use hw2_common::ids::{Epoch, SampleId};
use hw2_common::rng::Stream;
use image::{DynamicImage, ImageFormat, Rgb};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::augment::Augmentation;
use super::*;
use crate::photo::{Colours, Square};

/// Coarse blocks with some texture; `golden/make_images.py` makes the same.
pub(crate) fn picture(height: u32, width: u32) -> RgbImage {
    let value = |x: u32, y: u32, c: u32| (y / 5 * 37 + x / 4 * 23 + c * 61 + x * y % 7 * 5) as u8;
    RgbImage::from_fn(width, height, |x, y| Rgb([0, 1, 2].map(|c| value(x, y, c))))
}

pub(crate) fn encode(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut file = Cursor::new(Vec::new());
    image.into().write_to(&mut file, format).unwrap();
    file.into_inner()
}

pub(crate) fn jpeg(image: impl Into<DynamicImage>) -> Vec<u8> {
    encode(image, ImageFormat::Jpeg)
}

pub(crate) fn png(image: impl Into<DynamicImage>) -> Vec<u8> {
    encode(image, ImageFormat::Png)
}

/// One entry of `golden/images.json`.
pub(crate) fn golden(key: &str) -> Value {
    let mut all: Value = serde_json::from_str(include_str!("../../golden/images.json")).unwrap();
    all[key].take()
}

pub(crate) fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

pub(crate) fn assert_close(found: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        let difference = (f64::from(*found) - expected).abs();
        assert!(difference <= tolerance, "value {index}: {found} and not {expected}");
    }
}

/// SHA-256 over the bits of values.
pub(crate) fn digest(values: &[f32]) -> String {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_bits().to_le_bytes()).collect();
    hw2_common::hex(&Sha256::digest(bytes))
}

#[test]
fn the_evaluation_image_is_that_of_pillow() {
    let golden = golden("evaluation");
    let images = Images { short_side: 31, ..Images::default() };
    let image = eval_image(&png(picture(31, 43)), &images, 10).unwrap();
    assert_close(&image, &numbers(&golden["values"]), 1e-4);
}

#[test]
fn the_training_image_is_that_of_pillow() {
    let golden = golden("training");
    let integer = |key: &str| golden[key].as_u64().unwrap() as u32;
    let augmentation = Augmentation {
        square: Square { top: integer("top"), left: integer("left"), side: integer("side") },
        warp: warp::Warp::NOTHING,
        mirror: golden["mirror"].as_bool().unwrap(),
        colours: Colours {
            brightness: golden["brightness"].as_f64().unwrap() as f32,
            contrast: golden["contrast"].as_f64().unwrap() as f32,
        },
    };
    let size = integer("size") as usize;
    let mut image = vec![0.0; size * size * 3];
    let stream = Stream::augmentation(1, Epoch(0), SampleId(0));
    augmentation.photo(&Arc::new(picture(31, 43)), &stream).finish(size, &mut image);
    assert_close(&image, &numbers(&golden["values"]), 1e-4);
}

/// Bit for bit, so that no change of the recipe goes unnoticed. The picture is 500 x 375, as a PNG
/// file; the numbers are those of the first run, whose parts agree with Pillow in the tests above.
#[test]
fn the_whole_recipe_is_pinned() {
    let images = Images::default();
    let file = png(picture(375, 500));
    let evaluation = eval_image(&file, &images, 100).unwrap();
    let canonical = Arc::new(canonical::decode(&file, images.short_side).unwrap());
    let stream = Stream::augmentation(1, Epoch(2), SampleId(3));
    let augmentation = Augmentation::draw(&stream, &images, canonical.dimensions());
    let mut training = vec![0.0; 100 * 100 * 3];
    augmentation.photo(&canonical, &stream).finish(100, &mut training);
    let expected = Augmentation {
        square: Square { top: 0, left: 59, side: 260 },
        warp: warp::Warp::NOTHING,
        mirror: true,
        colours: Colours { brightness: -33.17707, contrast: 0.8088157 },
    };
    assert_eq!(augmentation, expected);
    assert_eq!(
        [digest(&evaluation), digest(&training)],
        [
            "adb537b1a941880425161a61c45c3f8cb55f27900e9cf183ee91f6d84f1d5584",
            "c1b6e42b0b30e632db54f3eb56a914d1404859fdcf5a0f4b716ae1f110e74688",
        ]
    );
}
