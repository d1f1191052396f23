//! Numbers that are a formula, so that inputs need no file.

/// `len` numbers of the tensor with number `tensor`: element i is
/// (mix(i, tensor) / 2^32 * 2 - 1) * bound + offset, in f64, then rounded to f32.
pub fn fill(tensor: u32, len: usize, bound: f64, offset: f64) -> Vec<f32> {
    let value = |i: usize| {
        let unit = f64::from(mix(i as u32, tensor)) / 4_294_967_296.0;
        ((unit * 2.0 - 1.0) * bound + offset) as f32
    };
    (0..len).map(value).collect()
}

/// A hash of two words.
fn mix(i: u32, tensor: u32) -> u32 {
    let mut x =
        i.wrapping_mul(2_654_435_761).wrapping_add(tensor.wrapping_mul(40_503)).wrapping_add(97);
    x ^= x >> 16;
    x = x.wrapping_mul(2_246_822_519);
    x ^= x >> 13;
    x = x.wrapping_mul(3_266_489_917);
    x ^ (x >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From `make_golden.py`.
    #[test]
    fn mix_is_that_of_the_script() {
        assert_eq!(
            [mix(0, 1), mix(1, 1), mix(12345, 500)],
            [3_949_838_684, 1_808_329_762, 1_713_657_703]
        );
    }
}
