//! Every kind of image file that a photo folder can hold, and some that none should.

use image::{GrayImage, ImageBuffer, Luma, LumaA, Rgb, Rgba};

use super::super::tests::{golden, jpeg, numbers, picture, png};
use super::*;

fn assert_near(found: &RgbImage, expected: &RgbImage, tolerance: u8) {
    assert_eq!(found.dimensions(), expected.dimensions());
    for (x, y, pixel) in found.enumerate_pixels() {
        for (found, expected) in pixel.0.iter().zip(expected.get_pixel(x, y).0) {
            assert!(found.abs_diff(expected) <= tolerance, "({x}, {y}): {found}, {expected}");
        }
    }
}

fn assert_undecodable(file: &[u8], part: &str) {
    let message = decode(file, 20).expect_err("must be refused").to_string();
    assert!(message.contains(part), "`{message}` lacks `{part}`");
}

#[test]
fn resizing_agrees_with_pillow_within_one_grey_level() {
    for case in golden("canonical").as_array().unwrap() {
        let integer = |key: &str| case[key].as_u64().unwrap() as u32;
        let pixels = numbers(&case["pixels"]).iter().map(|&value| value as u8).collect();
        let expected = RgbImage::from_raw(integer("width"), integer("height"), pixels).unwrap();
        let found = decode(&png(picture(31, 43)), integer("short_side")).unwrap();
        assert_near(&found, &expected, 1);
    }
}

#[test]
fn an_image_of_the_right_size_is_left_alone() {
    assert_eq!(decode(&png(picture(20, 33)), 20).unwrap(), picture(20, 33));
}

#[test]
fn the_content_decides_and_not_the_form() {
    let from_png = decode(&png(picture(40, 60)), 20).unwrap();
    let smooth = RgbImage::from_fn(60, 40, |x, y| Rgb([4 * x as u8, 6 * y as u8, 90]));
    assert_eq!(from_png.dimensions(), (30, 20));
    let (from_jpeg, from_png) = (decode(&jpeg(smooth.clone()), 20), decode(&png(smooth), 20));
    assert_near(&from_jpeg.unwrap(), &from_png.unwrap(), 6);
}

#[test]
fn grey_alpha_and_16_bits_become_8_bit_rgb() {
    let value = |x: u32, y: u32| (x * 8 + y * 4) as u8;
    let expected = RgbImage::from_fn(22, 20, |x, y| Rgb([value(x, y); 3]));
    let grey = GrayImage::from_fn(22, 20, |x, y| Luma([value(x, y)]));
    assert_eq!(decode(&png(grey.clone()), 20).unwrap(), expected);
    assert_near(&decode(&jpeg(grey), 20).unwrap(), &expected, 3);

    let alpha = ImageBuffer::from_fn(22, 20, |x, y| LumaA([value(x, y), (x * 9) as u8]));
    assert_eq!(decode(&png(alpha), 20).unwrap(), expected);
    let rgba = ImageBuffer::from_fn(22, 20, |x, y| {
        let v = value(x, y);
        Rgba([v, v, v, 0])
    });
    assert_eq!(decode(&png(rgba), 20).unwrap(), expected);

    let wide = |x, y| u16::from(value(x, y)) * 257 + 100;
    let grey16: ImageBuffer<Luma<u16>, _> = ImageBuffer::from_fn(22, 20, |x, y| Luma([wide(x, y)]));
    assert_eq!(decode(&png(grey16), 20).unwrap(), expected);
    let rgba16: ImageBuffer<Rgba<u16>, _> = ImageBuffer::from_fn(22, 20, |x, y| {
        let v = wide(x, y);
        Rgba([v, v, v, 7])
    });
    assert_eq!(decode(&png(rgba16), 20).unwrap(), expected);
}

#[test]
fn cmyk_and_progressive_jpegs_are_decoded() {
    let cmyk = decode(include_bytes!("../../../golden/cmyk.jpg"), 16).unwrap();
    // What Pillow makes of it.
    let colour = |x, _| Rgb(if x < 16 { [200, 40, 90] } else { [20, 180, 240] });
    assert_near(&cmyk, &RgbImage::from_fn(32, 16, colour), 3);

    let progressive = include_bytes!("../../../golden/progressive.jpg");
    assert_near(&decode(progressive, 8).unwrap(), &decode(&png(picture(64, 96)), 8).unwrap(), 8);
}

#[test]
fn every_exif_orientation_is_turned_upright() {
    let files: [&[u8]; 8] = [
        include_bytes!("../../../golden/exif-1.jpg"),
        include_bytes!("../../../golden/exif-2.jpg"),
        include_bytes!("../../../golden/exif-3.jpg"),
        include_bytes!("../../../golden/exif-4.jpg"),
        include_bytes!("../../../golden/exif-5.jpg"),
        include_bytes!("../../../golden/exif-6.jpg"),
        include_bytes!("../../../golden/exif-7.jpg"),
        include_bytes!("../../../golden/exif-8.jpg"),
    ];
    let upright = RgbImage::from_fn(32, 16, |x, y| match (x < 16, y < 8) {
        (true, true) => Rgb([255, 0, 0]),
        (false, true) => Rgb([0, 255, 0]),
        (true, false) => Rgb([0, 0, 255]),
        (false, false) => Rgb([0, 0, 0]),
    });
    for file in files {
        assert_near(&decode(file, 16).unwrap(), &upright, 4);
    }
}

#[test]
fn one_pixel_becomes_a_flat_image() {
    let pixel = RgbImage::from_pixel(1, 1, Rgb([9, 8, 7]));
    let expected = RgbImage::from_pixel(20, 20, Rgb([9, 8, 7]));
    assert_eq!(decode(&png(pixel.clone()), 20).unwrap(), expected);
    assert_near(&decode(&jpeg(pixel), 20).unwrap(), &expected, 3);
}

#[test]
fn a_strip_is_cut_to_its_middle() {
    // Red but for the 8 pixels in the middle.
    let strip = |x| if (4996..5004).contains(&x) { Rgb([0, 0, 255]) } else { Rgb([255, 0, 0]) };
    let lying = RgbImage::from_fn(10_000, 1, |x, _| strip(x));
    let standing = RgbImage::from_fn(1, 10_000, |_, y| strip(y));
    let expected = |width, height| RgbImage::from_pixel(width, height, Rgb([0, 0, 255]));
    assert_eq!(decode(&png(lying), 20).unwrap(), expected(160, 20));
    assert_eq!(decode(&png(standing), 20).unwrap(), expected(20, 160));
    assert_eq!(decode(&png(picture(10, 80)), 10).unwrap(), picture(10, 80), "8:1 is kept whole");
}

#[test]
fn an_image_that_decodes_to_too_much_is_refused_before_it_is_decoded() {
    let mut file = jpeg(picture(20, 30));
    let frame = file.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    // Height and width of the frame header.
    file[frame + 5..frame + 9].copy_from_slice(&[0xff; 4]);
    assert_undecodable(&file, "65535 x 65535 pixels take 12884508675 bytes");

    let mut file = png(picture(20, 30));
    file[16..24].copy_from_slice(&[0, 1, 0x86, 0xa0, 0, 1, 0x86, 0xa0]);
    let checksum = png_checksum(&file[12..29]).to_be_bytes();
    file[29..33].copy_from_slice(&checksum);
    assert_undecodable(&file, "exceeds limit");
}

/// CRC-32 as in the PNG specification.
fn png_checksum(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 * (crc & 1)))
    })
}

#[test]
fn files_that_end_too_early_are_refused_wherever_they_end() {
    let (baseline, lossless) = (jpeg(picture(40, 60)), png(picture(40, 60)));
    let progressive = include_bytes!("../../../golden/progressive.jpg").to_vec();
    // Without its end chunk of 12 bytes a PNG is whole.
    for (file, whole) in [(&baseline, 0), (&progressive, 0), (&lossless, 12)] {
        assert!(decode(file, 20).is_ok());
        for end in 0..file.len() - whole {
            assert!(decode(&file[..end], 20).is_err(), "{end} of {} bytes", file.len());
        }
    }
    assert_undecodable(&baseline[..baseline.len() - 50], "truncated");
    assert_undecodable(&progressive[..progressive.len() / 2], "truncated");
}

#[test]
fn what_follows_the_end_of_an_image_does_not_matter() {
    let file = jpeg(picture(40, 60));
    let mut longer = file.clone();
    longer.extend(b"appended by a camera \xff\xda and cut short");
    assert_eq!(decode(&longer, 20).unwrap(), decode(&file, 20).unwrap());
}

#[test]
fn what_is_no_image_is_refused() {
    assert_undecodable(b"", "not a JPEG or PNG image");
    assert_undecodable(b"<!DOCTYPE html>", "not a JPEG or PNG image");
    assert_undecodable(b"GIF89a\x01\x00\x01\x00\x00\x00\x00;", "Gif");
    assert_undecodable(&[0xff, 0xd8, 0xff, 0xd9], "not a JPEG");
}

/// A decoder that panics makes a bad image, not a dead worker.
#[test]
fn damaged_files_never_panic() {
    let files = [jpeg(picture(24, 33)), png(picture(24, 33))];
    for file in &files {
        for place in 0..file.len() {
            let mut damaged = file.clone();
            damaged[place] ^= 1 << (place % 8);
            let _ = decode(&damaged, 20).map(|image| assert_eq!(image.dimensions().1.min(20), 20));
        }
    }
}
