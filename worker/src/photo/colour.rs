//! Brightness, contrast and standardisation of images (h, w, 3) in float.
//!
//! All sums are in f64 and in one fixed order.

/// Adds `amount` to every value.
pub(super) fn brighten(image: &mut [f32], amount: f32) {
    for value in image {
        *value += amount;
    }
}

/// Multiplies each value's distance from its channel's mean by `factor`, without clamping.
pub(super) fn scale_contrast(image: &mut [f32], factor: f32) {
    let pixels = image.len() as f64 / 3.0;
    let means = sums(image, |value| value).map(|sum| (sum / pixels) as f32);
    for pixel in image.chunks_exact_mut(3) {
        for (value, mean) in pixel.iter_mut().zip(means) {
            *value = (*value - mean) * factor + mean;
        }
    }
}

/// Subtracts the mean of all n values and divides by their standard deviation, but at least by
/// 1 / sqrt(n), so that a flat image becomes zeros.
pub(super) fn standardise(image: &mut [f32]) {
    let n = image.len() as f64;
    let mean = sums(image, |value| value).iter().sum::<f64>() / n;
    let squares = sums(image, |value| (value - mean) * (value - mean));
    let deviation = (squares.iter().sum::<f64>() / n).sqrt();
    let factor = (1.0 / deviation.max(1.0 / n.sqrt())) as f32;
    let mean = mean as f32;
    for value in image {
        *value = (*value - mean) * factor;
    }
}

/// The sum of `term` over each channel.
fn sums(image: &[f32], term: impl Fn(f64) -> f64) -> [f64; 3] {
    let mut sums = [0.0; 3];
    for pixel in image.chunks_exact(3) {
        for channel in 0..3 {
            sums[channel] += term(f64::from(pixel[channel]));
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An image (5, 7, 3) of values 0 to 255.
    fn image() -> Vec<f32> {
        (0..105).map(|index| (index * 89 % 256) as f32).collect()
    }

    fn difference(a: &[f32], b: &[f32]) -> f32 {
        a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    }

    #[test]
    fn standardising_leaves_mean_0_and_deviation_1() {
        let mut image = image();
        standardise(&mut image);
        let n = image.len() as f64;
        let mean = image.iter().map(|&value| f64::from(value)).sum::<f64>() / n;
        let variance = image.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>() / n;
        assert!(mean.abs() < 1e-6 && (variance - 1.0).abs() < 1e-5, "{mean}, {variance}");
    }

    #[test]
    fn standardising_cancels_brightness() {
        let (mut plain, mut brighter) = (image(), image());
        brighten(&mut brighter, 47.3);
        assert_eq!(brighter[3], plain[3] + 47.3);
        standardise(&mut plain);
        standardise(&mut brighter);
        assert!(difference(&plain, &brighter) < 1e-5);
    }

    #[test]
    fn a_flat_image_becomes_zeros_and_a_nearly_flat_one_stays_small() {
        let mut flat = vec![77.0; 105];
        standardise(&mut flat);
        assert_eq!(flat, vec![0.0; 105]);
        let mut nearly = vec![77.0; 105];
        nearly[0] += 1e-3;
        standardise(&mut nearly);
        assert!(nearly[0] < 0.011 && nearly[0] > 0.009, "{}", nearly[0]);
    }

    #[test]
    fn contrast_keeps_each_channels_mean_and_does_not_clamp() {
        let mut scaled = image();
        scale_contrast(&mut scaled, 1.8);
        for (before, after) in sums(&image(), |v| v).into_iter().zip(sums(&scaled, |v| v)) {
            assert!((before - after).abs() < 1e-3);
        }
        assert!(scaled.iter().any(|&value| value < 0.0) && scaled.iter().any(|&v| v > 255.0));
        let mut gone = image();
        scale_contrast(&mut gone, 0.0);
        assert_eq!(gone[..3], gone[102..]);
    }
}
