//! Resizing in float against Pillow's.

use super::*;
use crate::data::tests::{assert_close, golden, numbers, picture};

#[test]
fn shrinking_enlarging_and_keeping_agree_with_pillow() {
    for case in golden("resized").as_array().unwrap() {
        let integer = |key: &str| case[key].as_u64().unwrap() as u32;
        let square = Square { top: integer("top"), left: integer("left"), side: integer("side") };
        let size = integer("size") as usize;
        let mut out = vec![0.0; size * size * 3];
        resize(&picture(31, 43), square, size, &mut out);
        assert_close(&out, &numbers(&case["values"]), 1e-3);
    }
}

#[test]
fn a_square_of_the_output_size_is_copied() {
    let image = picture(31, 43);
    let mut out = vec![0.0; 20 * 20 * 3];
    resize(&image, Square { top: 7, left: 9, side: 20 }, 20, &mut out);
    for (index, pixel) in out.chunks_exact(3).enumerate() {
        let (x, y) = (9 + index as u32 % 20, 7 + index as u32 / 20);
        assert_eq!(pixel, image.get_pixel(x, y).0.map(f32::from));
    }
}

#[test]
fn pixels_outside_of_the_square_do_not_count() {
    let square = Square { top: 3, left: 11, side: 25 };
    let image = picture(31, 43);
    let mut noisy = image.clone();
    for (x, y, pixel) in noisy.enumerate_pixels_mut() {
        if !(11..36).contains(&x) || !(3..28).contains(&y) {
            pixel.0 = [255, 0, 255];
        }
    }
    let [mut plain, mut other] = [(); 2].map(|()| vec![0.0; 9 * 9 * 3]);
    resize(&image, square, 9, &mut plain);
    resize(&noisy, square, 9, &mut other);
    assert_eq!(plain, other);
}

#[test]
fn every_row_of_weights_sums_to_one_and_stays_within() {
    for (side, size) in [(260, 100), (200, 100), (28, 28), (24, 28), (1, 5), (7, 1), (101, 100)] {
        for taps in triangle(side, size) {
            assert!(!taps.weights.is_empty() && taps.first + taps.weights.len() <= side);
            let sum: f32 = taps.weights.iter().sum();
            assert!((sum - 1.0).abs() < 1e-6, "{side} to {size}: {sum}");
        }
    }
}

#[test]
fn the_central_square_is_in_the_middle() {
    let central = |width, height| Square::central(&RgbImage::new(width, height));
    assert_eq!(central(43, 30), Square { top: 0, left: 6, side: 30 });
    assert_eq!(central(30, 43), Square { top: 6, left: 0, side: 30 });
}
