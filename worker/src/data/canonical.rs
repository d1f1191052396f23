//! From a file's bytes to the canonical image: what every later step and the cache work on.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use image::{DynamicImage, ImageDecoder, ImageError, ImageReader, Limits, RgbImage, imageops};

/// Longest side of an image file in pixels; the formats allow no more, or far more.
pub const SIDE_MAX: u32 = 65_535;

/// Most bytes of a decoded image: 178 million pixels of 8-bit RGB.
pub const DECODED_BYTES_MAX: u64 = 512 << 20;

/// The canonical image is at most so many times as long as it is wide.
const ASPECT_MAX: u32 = 8;

/// Why bytes are not an image to train on.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// They are not a JPEG or PNG image, or a broken one.
    #[error("not a JPEG or PNG image that can be decoded: {0}")]
    Undecodable(#[from] ImageError),
    /// A JPEG ends before its end marker. Decoders fill the rest with grey.
    #[error("a truncated JPEG image: it has no end marker")]
    Truncated,
    /// Decoding would take too much memory.
    #[error(
        "{width} x {height} pixels take {bytes} bytes, more than the limit of {DECODED_BYTES_MAX}"
    )]
    TooLarge {
        /// In pixels.
        width: u32,
        /// In pixels.
        height: u32,
        /// As the decoder would deliver it.
        bytes: u64,
    },
    /// The decoder has a defect that this image meets.
    #[error("the image decoder panicked on it")]
    Panicked,
}

/// Decodes a JPEG or PNG file, by its content and not by its name, into 8-bit RGB, turned as its
/// EXIF orientation says, centre-cropped to 8:1 where it is longer, and with a short side of
/// `short_side` pixels.
///
/// Grey becomes three equal channels and 16 bits are rounded to 8. An alpha channel is dropped, as
/// the original program did: what lies under transparent pixels shows. CMYK is converted by the
/// decoder. Colour profiles are not applied. Of an animation the first image is taken.
///
/// # Errors
/// [`DecodeError`].
pub(super) fn decode(file: &[u8], short_side: u32) -> Result<RgbImage, DecodeError> {
    // Decoders panic on some hostile files.
    let image = catch_unwind(AssertUnwindSafe(|| decode_upright(file)))
        .unwrap_or(Err(DecodeError::Panicked))?;
    Ok(with_short_side(central_part(image), short_side))
}

fn decode_upright(file: &[u8]) -> Result<RgbImage, DecodeError> {
    if is_truncated_jpeg(file) {
        return Err(DecodeError::Truncated);
    }
    let mut reader =
        ImageReader::new(Cursor::new(file)).with_guessed_format().map_err(ImageError::IoError)?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(SIDE_MAX);
    limits.max_image_height = Some(SIDE_MAX);
    limits.max_alloc = Some(DECODED_BYTES_MAX);
    reader.limits(limits);
    let mut decoder = reader.into_decoder()?;
    let (width, height) = decoder.dimensions();
    let bytes = decoder.total_bytes();
    if bytes > DECODED_BYTES_MAX {
        return Err(DecodeError::TooLarge { width, height, bytes });
    }
    let orientation = decoder.orientation()?;
    let image = DynamicImage::from_decoder(decoder)?.into_rgb8();
    let mut image = DynamicImage::ImageRgb8(image);
    image.apply_orientation(orientation);
    Ok(image.into_rgb8())
}

/// Whether this is a JPEG whose first scan no end marker follows. Entropy-coded data holds none,
/// and what other programs append after the end marker does not matter.
fn is_truncated_jpeg(file: &[u8]) -> bool {
    const START: [u8; 2] = [0xff, 0xd8];
    const END: [u8; 2] = [0xff, 0xd9];
    const SCAN: u8 = 0xda;
    if !file.starts_with(&START) || file.ends_with(&END) {
        return false;
    }
    let mut rest = &file[2..];
    // Each segment before the first scan: marker, then a length that counts itself.
    while let &[0xff, marker, high, low, ..] = rest {
        let length = usize::from(u16::from_be_bytes([high, low]));
        if marker == SCAN {
            return !rest.windows(2).any(|pair| pair == END);
        }
        rest = rest.get(2 + length..).unwrap_or_default();
    }
    // No scan in reach: whatever that is, the decoder will say.
    false
}

fn central_part(image: RgbImage) -> RgbImage {
    let (width, height) = image.dimensions();
    let kept = |side: u32, other: u32| side.min(other.saturating_mul(ASPECT_MAX));
    let (kept_width, kept_height) = (kept(width, height), kept(height, width));
    if (kept_width, kept_height) == (width, height) {
        return image;
    }
    let (left, top) = ((width - kept_width) / 2, (height - kept_height) / 2);
    imageops::crop_imm(&image, left, top, kept_width, kept_height).to_image()
}

/// Bilinear with antialiasing, in integers: its vector code gives the bits of its plain code.
fn with_short_side(image: RgbImage, short_side: u32) -> RgbImage {
    let (width, height) = image.dimensions();
    let shorter = u64::from(width.min(height));
    let scaled = |side: u32| {
        let nearest = (2 * u64::from(side) * u64::from(short_side) + shorter) / (2 * shorter);
        nearest as u32
    };
    let (new_width, new_height) = (scaled(width), scaled(height));
    if (new_width, new_height) == (width, height) {
        return image;
    }
    let from = ImageRef::new(width, height, image.as_raw(), PixelType::U8x3)
        .expect("the buffer has the image's size");
    let mut to = Image::new(new_width, new_height, PixelType::U8x3);
    let bilinear = ResizeAlg::Convolution(FilterType::Bilinear);
    Resizer::new()
        .resize(&from, &mut to, &ResizeOptions::new().resize_alg(bilinear))
        .expect("both images are of one pixel type and not empty");
    RgbImage::from_raw(new_width, new_height, to.into_vec())
        .expect("the buffer has the image's size")
}

#[cfg(test)]
mod tests;
