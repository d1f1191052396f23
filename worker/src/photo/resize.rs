//! From a square of a canonical image to the network's input size, in float.
//!
//! Bilinear with antialiasing: a triangle as wide as the scale, as Pillow's and PyTorch's, with
//! weights that are normalised where it leaves the square. In float because that costs 0.1 ms an
//! image more than 8-bit arithmetic and loses nothing in dark or flat images.

use image::RgbImage;

/// A square of an image, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Square {
    /// Rows above it.
    pub top: u32,
    /// Columns left of it.
    pub left: u32,
    /// Of each side.
    pub side: u32,
}

/// The pixels that one output pixel is a weighted mean of, along one axis.
struct Taps {
    first: usize,
    weights: Vec<f32>,
}

impl Square {
    /// As large as `image` allows, and in its middle.
    pub fn central(image: &RgbImage) -> Self {
        let (width, height) = image.dimensions();
        let side = width.min(height);
        Self { top: (height - side) / 2, left: (width - side) / 2, side }
    }
}

/// Resizes `square` of `image` into `out` (size, size, 3), values 0 to 255. No pixel outside of the
/// square counts.
pub(super) fn resize(image: &RgbImage, square: Square, size: usize, out: &mut [f32]) {
    assert_eq!(out.len(), size * size * 3, "out is (size, size, 3)");
    let taps = triangle(square.side as usize, size);
    let [top, left, side] = [square.top, square.left, square.side].map(|v| v as usize);
    let stride = image.width() as usize * 3;
    // One output row, at the square's width: (side, 3).
    let mut row = vec![0.0; side * 3];
    for (rows, out_row) in taps.iter().zip(out.chunks_exact_mut(size * 3)) {
        row.fill(0.0);
        for (y, &weight) in (top + rows.first..).zip(&rows.weights) {
            let pixels = &image.as_raw()[y * stride + left * 3..][..side * 3];
            for (sum, &value) in row.iter_mut().zip(pixels) {
                *sum += weight * f32::from(value);
            }
        }
        for (columns, pixel) in taps.iter().zip(out_row.chunks_exact_mut(3)) {
            let values = row[columns.first * 3..].chunks_exact(3);
            let mut sum = [0.0; 3];
            for (value, &weight) in values.zip(&columns.weights) {
                for channel in 0..3 {
                    sum[channel] += weight * value[channel];
                }
            }
            pixel.copy_from_slice(&sum);
        }
    }
}

/// The taps of each of `size` output pixels over `side` input pixels.
fn triangle(side: usize, size: usize) -> Vec<Taps> {
    let scale = side as f64 / size as f64;
    let radius = scale.max(1.0);
    let taps = |index: usize| {
        let centre = (index as f64 + 0.5) * scale;
        let first = (centre - radius + 0.5).max(0.0) as usize;
        let end = ((centre + radius + 0.5) as usize).min(side);
        let weight = |pixel| (1.0 - ((pixel as f64 + 0.5 - centre) / radius).abs()).max(0.0);
        let sum: f64 = (first..end).map(weight).sum();
        Taps { first, weights: (first..end).map(|pixel| (weight(pixel) / sum) as f32).collect() }
    };
    (0..size).map(taps).collect()
}

#[cfg(test)]
mod tests;
