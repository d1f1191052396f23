//! The training image: a random square of the canonical image, with random colours.

use std::sync::Arc;

use hw2_common::config::Images;
use hw2_common::rng::Stream;
use image::RgbImage;

use super::warp::Warp;
use crate::photo::{Colours, Photo, Square};

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
    pub(super) colours: Colours,
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
            colours: Colours {
                brightness: images.brightness * signed_unit(stream, word::BRIGHTNESS),
                contrast: contrast_min
                    + (contrast_max - contrast_min) * stream.unit(word::CONTRAST),
            },
        }
    }

    /// Carries out the warp, on the image and with the stream that this was drawn for; the rest is
    /// still to be done.
    pub(super) fn photo(&self, canonical: &Arc<RgbImage>, stream: &Stream) -> Photo {
        let Self { square, ref warp, mirror, colours } = *self;
        let colours = Some(colours);
        if *warp == Warp::NOTHING {
            return Photo { image: Arc::clone(canonical), square, mirror, colours };
        }
        let warped = Arc::new(warp.apply(canonical, square, stream));
        Photo { mirror, colours, ..Photo::central(warped) }
    }
}

/// Uniform in [-1, 1).
pub(super) fn signed_unit(stream: &Stream, word: u32) -> f32 {
    2.0 * stream.unit(word) - 1.0
}

#[cfg(test)]
mod tests;
