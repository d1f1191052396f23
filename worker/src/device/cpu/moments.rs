//! Mean and variance of many rows: of each chunk in two passes while it is in the cache, then
//! combined in order. Chan, Golub and LeVeque, "Algorithms for computing the sample variance"
//! (1983).

use crate::device::Tensor;
use crate::device::memory::rows;

/// Mean and sum of squared deviations, each (c), of the rows of `values` to `out` (2, c).
#[inline(always)]
pub(super) fn of_rows(values: &[f32], tensor: Tensor, out: &mut [f32]) {
    let (means, squares) = out.split_at_mut(tensor.shape.c);
    means.fill(0.0);
    squares.fill(0.0);
    let mut count = 0.0_f32;
    for row in rows(values, tensor) {
        means.iter_mut().zip(row).for_each(|(mean, x)| *mean += x);
        count += 1.0;
    }
    means.iter_mut().for_each(|mean| *mean /= count);
    for row in rows(values, tensor) {
        for ((square, mean), x) in squares.iter_mut().zip(&*means).zip(row) {
            let deviation = x - mean;
            *square += deviation * deviation;
        }
    }
}

/// Mean and biased variance (c) of everything, from the (2, c) of chunks of `counts` rows.
pub(super) fn combine(counts: &[usize], partials: &[f32], c: usize) -> (Vec<f32>, Vec<f32>) {
    let mut means = vec![0.0_f64; c];
    let mut squares = vec![0.0_f64; c];
    let mut total = 0.0;
    for (count, partial) in counts.iter().zip(partials.chunks(2 * c)) {
        let count = *count as f64;
        let part = count / (total + count);
        for i in 0..c {
            let difference = f64::from(partial[i]) - means[i];
            means[i] += difference * part;
            squares[i] += f64::from(partial[c + i]) + difference * difference * total * part;
        }
        total += count;
    }
    let mean = means.iter().map(|mean| *mean as f32).collect();
    (mean, squares.iter().map(|square| (square / total) as f32).collect())
}
