//! The training image: a random square of the canonical image, with random colours.

use hw2_common::config::Images;
use hw2_common::rng::Stream;
use image::RgbImage;

use super::colour;
use super::resize::{Square, resize};
use super::warp::Warp;

/// Which word of the image's random stream decides what. Each decision has its own, so that turning
/// an option on changes no other decision.
pub(super) mod word {
    pub(in super::super) const SIDE: u32 = 0;
    pub(in super::super) const TOP: u32 = 1;
    pub(in super::super) const LEFT: u32 = 2;
    pub(in super::super) const MIRROR: u32 = 3;
    pub(in super::super) const BRIGHTNESS: u32 = 4;
    pub(in super::super) const CONTRAST: u32 = 5;
    pub(in super::super) const MIRROR_VERTICAL: u32 = 6;
    pub(in super::super) const QUARTER_TURNS: u32 = 7;
    pub(in super::super) const ROTATION: u32 = 8;
    pub(in super::super) const SCALE: u32 = 9;
    pub(in super::super) const SHIFT_DOWN: u32 = 10;
    pub(in super::super) const SHIFT_RIGHT: u32 = 11;
    /// Word `SALT_PEPPER + y * side + x` is for pixel (y, x) of the square.
    pub(in super::super) const SALT_PEPPER: u32 = 16;
}

/// What is done to one image in one epoch.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Augmentation {
    pub(super) square: Square,
    pub(super) warp: Warp,
    pub(super) mirror: bool,
    /// Added to every value, in grey levels.
    pub(super) brightness: f32,
    /// Factor of the distance from the channel's mean.
    pub(super) contrast: f32,
}

impl Augmentation {
    /// Decides for the image that `stream` belongs to, whose canonical image is `width` x `height`.
    pub(super) fn draw(stream: &Stream, images: &Images, (width, height): (u32, u32)) -> Self {
        let Images { crop_min, crop_max, contrast_min, contrast_max, .. } = *images;
        let side = crop_min + stream.below(word::SIDE, crop_max - crop_min + 1);
        let square = Square {
            top: stream.below(word::TOP, height - side + 1),
            left: stream.below(word::LEFT, width - side + 1),
            side,
        };
        Self {
            square,
            warp: Warp::draw(stream, images),
            mirror: images.mirror && stream.below(word::MIRROR, 2) == 1,
            brightness: images.brightness * signed_unit(stream, word::BRIGHTNESS),
            contrast: contrast_min + (contrast_max - contrast_min) * stream.unit(word::CONTRAST),
        }
    }

    /// Carries it out, on the image and with the stream that it was drawn for, into `out`
    /// (size, size, 3).
    pub(super) fn apply(
        &self,
        canonical: &RgbImage,
        stream: &Stream,
        size: usize,
        out: &mut [f32],
    ) {
        if self.warp == Warp::NOTHING {
            resize(canonical, self.square, size, out);
        } else {
            let warped = self.warp.apply(canonical, self.square, stream);
            resize(&warped, Square::central(&warped), size, out);
        }
        if self.mirror {
            mirror(out, size);
        }
        colour::brighten(out, self.brightness);
        colour::scale_contrast(out, self.contrast);
        colour::standardise(out);
    }
}

/// Uniform in [-1, 1).
pub(super) fn signed_unit(stream: &Stream, word: u32) -> f32 {
    2.0 * stream.unit(word) - 1.0
}

/// Exchanges left and right of an image (h, w, 3).
fn mirror(image: &mut [f32], width: usize) {
    for row in image.chunks_exact_mut(width * 3) {
        let (pixels, _) = row.as_chunks_mut::<3>();
        pixels.reverse();
    }
}

#[cfg(test)]
mod tests;
