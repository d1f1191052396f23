//! The augmentations that are off by default, since the original found that they hurt.
//!
//! They come before the resize, in this order: rotation, scale and shift together; quarter turns;
//! vertical mirror; salt and pepper.

use hw2_common::config::Images;
use hw2_common::rng::{self, Stream};
use image::{Rgb, RgbImage, imageops};

use super::augment::{signed_unit, word};
use crate::photo::Square;

/// What is done to the pixels of a training square before it is resized.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Warp {
    /// Clockwise, in degrees.
    pub(super) rotation: f32,
    /// Above 1 the content grows.
    pub(super) scale: f32,
    /// How far the content moves down and right, as parts of the square's side.
    pub(super) shift: [f32; 2],
    /// Clockwise.
    pub(super) quarter_turns: u32,
    /// Exchange top and bottom.
    pub(super) mirror_vertical: bool,
    /// Part of the pixels that turn black or white.
    pub(super) salt_pepper: f32,
}

impl Warp {
    /// Leaves the square as it is.
    pub(super) const NOTHING: Self = Self {
        rotation: 0.0,
        scale: 1.0,
        shift: [0.0; 2],
        quarter_turns: 0,
        mirror_vertical: false,
        salt_pepper: 0.0,
    };

    pub(super) fn draw(stream: &Stream, images: &Images) -> Self {
        let shift = |word| images.shift * signed_unit(stream, word);
        Self {
            rotation: images.rotation_degrees * signed_unit(stream, word::ROTATION),
            scale: 1.0 + images.scale * signed_unit(stream, word::SCALE),
            shift: [shift(word::SHIFT_DOWN), shift(word::SHIFT_RIGHT)],
            quarter_turns: match images.quarter_turns {
                true => stream.below(word::QUARTER_TURNS, 4),
                false => 0,
            },
            mirror_vertical: images.mirror_vertical && stream.below(word::MIRROR_VERTICAL, 2) == 1,
            salt_pepper: images.salt_pepper,
        }
    }

    /// The warped square: (side, side). `stream` decides the pixels of salt and pepper.
    pub(super) fn apply(&self, image: &RgbImage, square: Square, stream: &Stream) -> RgbImage {
        let Square { top, left, side } = square;
        let mut out = match self.moves() {
            true => self.resample(image, square),
            false => imageops::crop_imm(image, left, top, side, side).to_image(),
        };
        out = match self.quarter_turns {
            0 => out,
            1 => imageops::rotate90(&out),
            2 => imageops::rotate180(&out),
            _ => imageops::rotate270(&out),
        };
        if self.mirror_vertical {
            imageops::flip_vertical_in_place(&mut out);
        }
        if self.salt_pepper > 0.0 {
            add_salt_and_pepper(&mut out, self.salt_pepper, stream);
        }
        out
    }

    fn moves(&self) -> bool {
        let Self { rotation, scale, shift, .. } = Self::NOTHING;
        (self.rotation, self.scale, self.shift) != (rotation, scale, shift)
    }

    /// Rotates and scales about the square's centre, then shifts. Each pixel looks up where it
    /// comes from, outside of the square too; beyond the image its edge goes on.
    fn resample(&self, image: &RgbImage, square: Square) -> RgbImage {
        // libm: the same bits on every machine.
        let angle = self.rotation.to_radians();
        let (sin, cos) = (libm::sinf(angle), libm::cosf(angle));
        let half = square.side as f32 / 2.0;
        let [down, right] = self.shift.map(|part| part * square.side as f32);
        RgbImage::from_fn(square.side, square.side, |x, y| {
            let dx = (x as f32 + 0.5 - half - right) / self.scale;
            let dy = (y as f32 + 0.5 - half - down) / self.scale;
            let source_x = square.left as f32 + half + cos * dx + sin * dy;
            let source_y = square.top as f32 + half - sin * dx + cos * dy;
            bilinear(image, source_x - 0.5, source_y - 0.5)
        })
    }
}

/// The value at (x, y) between pixel centres, rounded; outside, that of the nearest edge.
fn bilinear(image: &RgbImage, x: f32, y: f32) -> Rgb<u8> {
    let x = x.clamp(0.0, (image.width() - 1) as f32);
    let y = y.clamp(0.0, (image.height() - 1) as f32);
    let (left, top) = (x as u32, y as u32);
    let (right, bottom) = ((left + 1).min(image.width() - 1), (top + 1).min(image.height() - 1));
    let (x, y) = (x - left as f32, y - top as f32);
    Rgb(std::array::from_fn(|channel| {
        let at = |x, y| f32::from(image.get_pixel(x, y).0[channel]);
        let upper = at(left, top) * (1.0 - x) + at(right, top) * x;
        let lower = at(left, bottom) * (1.0 - x) + at(right, bottom) * x;
        (upper * (1.0 - y) + lower * y + 0.5) as u8
    }))
}

/// Turns `part` of the pixels black or white, with equal chances.
fn add_salt_and_pepper(image: &mut RgbImage, part: f32, stream: &Stream) {
    for (pixel, index) in image.pixels_mut().zip(word::SALT_PEPPER..) {
        let word = stream.word(index);
        if rng::unit(word) < part {
            // The lowest bit is none of those that `unit` reads.
            pixel.0 = [if word & 1 == 1 { 255 } else { 0 }; 3];
        }
    }
}
