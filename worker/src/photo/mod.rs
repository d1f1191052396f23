//! Photos of which it is decided how they become images of a batch, and the plain way to do it.
//!
//! A CPU does it in the threads that decode, a GPU by a kernel that is tested against this.

mod colour;
mod resize;

use std::sync::Arc;

use image::RgbImage;

pub use resize::Square;

/// A photo, and what is to be made of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Photo {
    /// In its canonical form.
    pub image: Arc<RgbImage>,
    /// The part that is looked at.
    pub square: Square,
    /// Whether left and right change places.
    pub mirror: bool,
    /// Those of an evaluation stay as they are.
    pub colours: Option<Colours>,
}

/// How colours change before they are standardised.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Colours {
    /// Added to every value, in grey levels.
    pub brightness: f32,
    /// Factor of the distance from the channel's mean.
    pub contrast: f32,
}

impl Photo {
    /// For evaluation: the central square.
    pub fn central(image: Arc<RgbImage>) -> Self {
        Self { square: Square::central(&image), mirror: false, colours: None, image }
    }

    /// The image for the network, resized and standardised, into `out` (size, size, 3).
    pub fn finish(&self, size: usize, out: &mut [f32]) {
        resize::resize(&self.image, self.square, size, out);
        if self.mirror {
            mirror(out, size);
        }
        if let Some(Colours { brightness, contrast }) = self.colours {
            colour::brighten(out, brightness);
            colour::scale_contrast(out, contrast);
        }
        colour::standardise(out);
    }

    /// The rows of the square, top to bottom: (side, 3) bytes each.
    pub fn rows(&self) -> impl Iterator<Item = &[u8]> {
        let [top, left, side] =
            [self.square.top, self.square.left, self.square.side].map(|v| v as usize);
        let rows = self.image.as_raw().chunks_exact(self.image.width() as usize * 3);
        rows.skip(top).take(side).map(move |row| &row[left * 3..][..side * 3])
    }
}

/// Exchanges left and right of an image (h, w, 3).
fn mirror(image: &mut [f32], width: usize) {
    for row in image.chunks_exact_mut(width * 3) {
        let (pixels, _) = row.as_chunks_mut::<3>();
        pixels.reverse();
    }
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    #[test]
    fn the_rows_are_those_of_the_square() {
        let image = RgbImage::from_fn(5, 4, |x, y| Rgb([x as u8, y as u8, 9]));
        let square = Square { top: 1, left: 2, side: 2 };
        let photo = Photo { image: Arc::new(image), square, mirror: false, colours: None };
        let rows: Vec<&[u8]> = photo.rows().collect();
        assert_eq!(rows, [[2, 1, 9, 3, 1, 9], [2, 2, 9, 3, 2, 9]]);
    }
}
