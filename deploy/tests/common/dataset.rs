//! A dataset that a test can make in a moment: five patterns that a small network can tell apart.

use std::path::Path;

use image::{Rgb, RgbImage};

/// Names of the classes, in byte order.
pub(crate) const CLASSES: [&str; 5] = ["checks", "columns", "dots", "rows", "slopes"];

const WIDTH: u32 = 24;
const HEIGHT: u32 = 20;
const TRAIN_PER_CLASS: u32 = 12;
const VAL_PER_CLASS: u32 = 8;

/// Makes train/ and val/ with PNG files in `dir`.
pub(crate) fn write_dataset(dir: &Path) {
    for (part, numbers) in
        [("train", 0..TRAIN_PER_CLASS), ("val", TRAIN_PER_CLASS..TRAIN_PER_CLASS + VAL_PER_CLASS)]
    {
        for (class, name) in CLASSES.iter().enumerate() {
            let folder = dir.join(part).join(name);
            std::fs::create_dir_all(&folder).unwrap();
            for number in numbers.clone() {
                write_image(&folder.join(format!("{number:02}.png")), class, number);
            }
        }
    }
}

/// Writes image `number` of `class`, an index into [`CLASSES`].
pub(crate) fn write_image(path: &Path, class: usize, number: u32) {
    let image = RgbImage::from_fn(WIDTH, HEIGHT, |x, y| pixel(class, number, x, y));
    image.save(path).unwrap();
}

/// The class gives the pattern; the number moves it, and gives its colour and noise.
fn pixel(class: usize, number: u32, x: u32, y: u32) -> Rgb<u8> {
    let (shifted_x, shifted_y) = (x + number, y + number / 3);
    let bright = match CLASSES[class] {
        "checks" => (shifted_x / 3 + shifted_y / 3).is_multiple_of(2),
        "columns" => (shifted_x / 3).is_multiple_of(2),
        "dots" => shifted_x % 6 < 3 && shifted_y % 6 < 3,
        "rows" => (shifted_y / 3).is_multiple_of(2),
        _ => ((shifted_x + shifted_y) / 3).is_multiple_of(2),
    };
    let base = if bright { 150 } else { 60 };
    Rgb([0, 1, 2].map(|channel| {
        let noise = mixed(mixed(number) ^ mixed(y * WIDTH + x) ^ channel) % 60;
        let tint = mixed(number ^ (channel << 8)) % 40;
        (base + noise + tint) as u8
    }))
}

/// A hash with every bit of `value` in every bit of the result.
fn mixed(value: u32) -> u32 {
    let value = (value ^ (value >> 16)).wrapping_mul(0x7feb_352d);
    let value = (value ^ (value >> 15)).wrapping_mul(0x846c_a68b);
    value ^ (value >> 16)
}
