//! Photos that a GPU finishes, against the way in which every other device gets them.

use std::sync::Arc;

use hw2_common::config::Precision;
use hw2_common::model::Shape;
use image::{Rgb, RgbImage};

use super::gpus;
use crate::device::plain::Plain;
use crate::device::{Float, Format, Op, Pipeline, Request, Segment, Serial, Span, Tensor};
use crate::photo::{Colours, Photo, Square};

/// Noise over slopes; from one number to the next another picture.
fn picture(number: u32, width: u32, height: u32) -> Arc<RgbImage> {
    let value = |x: u32, y: u32, c: u32| {
        (x * 3 + y * 2 + c * 50 + (x * 7919 + y * 104_729 + number * 31) % 61) as u8
    };
    Arc::new(RgbImage::from_fn(width, height, |x, y| Rgb([0, 1, 2].map(|c| value(x, y, c)))))
}

/// Shrunk, enlarged and of equal size, in corners and in the middle, with and without colours.
fn photos() -> Vec<Photo> {
    let colours = |brightness, contrast| Some(Colours { brightness, contrast });
    let photo = |number, (width, height), (top, left, side), mirror, colours| Photo {
        image: picture(number, width, height),
        square: Square { top, left, side },
        mirror,
        colours,
    };
    vec![
        photo(1, (70, 61), (0, 0, 61), false, colours(-40.0, 0.2)),
        photo(2, (70, 61), (3, 11, 50), true, colours(63.0, 1.8)),
        photo(3, (23, 40), (17, 0, 23), false, None),
        photo(4, (23, 40), (5, 2, 19), true, None),
        photo(5, (9, 9), (8, 8, 1), true, colours(10.0, 1.5)),
        photo(6, (300, 260), (0, 40, 260), true, colours(0.5, 0.7)),
        photo(7, (40, 64), (1, 0, 40), false, colours(0.0, 1.0)),
    ]
}

/// Makes the images (7, size, size, 3) of the batches of several steps, of which the next one's are
/// staged while those of the one before are being made.
fn finished<P: Pipeline>(
    device: &mut P,
    steps: &[Vec<Vec<Photo>>],
    format: Format,
    size: usize,
) -> Vec<f64> {
    let shape = Shape { h: size, w: size, c: 3 };
    let n = steps[0][0].len();
    let len = steps[0].len() * n * shape.len();
    let requests = [Request { format, ..Request::lasting(len) }, Request::lasting(len)];
    let [images, copies] = device.alloc(&requests)[..] else { unreachable!() };
    let whole = |buffer| Span { buffer, offset: 0, len };
    let ops = vec![Op::Cast { input: whole(images), output: whole(copies) }];
    let segments = [Segment { ops, made: whole(copies) }];
    let stage = |device: &mut P, step: &[Vec<Photo>]| {
        for (place, batch) in step.iter().enumerate() {
            let offset = place * n * shape.len();
            device.stage_photos(Tensor { offset, ..Tensor::new(images, n, shape) }, batch);
        }
    };
    stage(device, &steps[0]);
    let mut finished = Vec::new();
    for place in 1..=steps.len() {
        device.take_staged();
        device.begin(&segments);
        if let Some(next) = steps.get(place) {
            stage(device, next);
        }
        finished.extend(device.next().unwrap().iter().map(|value| value.to_f64()));
    }
    finished
}

#[test]
fn a_gpu_finishes_photos_as_a_cpu_does() {
    // So many that the memory of uploads is used again while the GPU is far behind.
    let batch = |round| {
        let mut photos = photos();
        photos.rotate_left(round);
        photos
    };
    let steps: Vec<Vec<Vec<Photo>>> =
        [0..4, 3..7].map(|rounds| rounds.map(batch).collect()).to_vec();
    for size in [1, 19, 40] {
        let mut expected = Vec::new();
        for photo in steps.iter().flatten().flatten() {
            let mut image = vec![0.0; size * size * 3];
            photo.finish(size, &mut image);
            expected.extend(image.into_iter().map(f64::from));
        }
        let check = |found: &[f64], precision: Precision, tolerance: fn(f64) -> f64| {
            for (index, (found, expected)) in found.iter().zip(&expected).enumerate() {
                let difference = (found - expected).abs();
                let image = index / (size * size * 3) % steps[0][0].len();
                assert!(
                    difference <= tolerance(*expected),
                    "{precision}, {size}x{size}, image {image}, number {index}: {found} and not \
                     {expected}"
                );
            }
        };
        let plain = finished(&mut Serial::new(Plain::<f32>::new()), &steps, Format::Full, size);
        assert_eq!(plain, expected);
        let mut again: Option<Vec<f64>> = None;
        for mut gpu in gpus(Precision::Fp32) {
            let found = finished(&mut gpu, &steps, Format::Full, size);
            check(&found, Precision::Fp32, |_| 1e-4);
            assert_eq!(*again.get_or_insert_with(|| found.clone()), found);
        }
        for mut gpu in gpus(Precision::Bf16) {
            let found = finished(&mut gpu, &steps, Format::Bf16, size);
            // Half a unit of the eighth digit, and what may differ before.
            check(&found, Precision::Bf16, |value| value.abs() / 256.0 + 1e-4);
        }
    }
}
