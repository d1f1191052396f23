//! Counter-based randomness: every random number is a function of (seed, purpose, coordinates).
//!
//! Philox4x32-10 of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3"
//! (SC 2011). It keeps no state, so any worker can draw any number of any step, and the CUDA
//! kernels draw the same ones.

use crate::ids::{Epoch, GlobalStep, ReplicaId, SampleId};

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const ROUNDS: usize = 10;

/// One block of four random words.
pub fn philox4x32(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..ROUNDS {
        let product0 = u64::from(MULTIPLIERS[0]) * u64::from(counter[0]);
        let product1 = u64::from(MULTIPLIERS[1]) * u64::from(counter[2]);
        counter = [
            (product1 >> 32) as u32 ^ counter[1] ^ key[0],
            product1 as u32,
            (product0 >> 32) as u32 ^ counter[3] ^ key[1],
            product0 as u32,
        ];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    counter
}

/// What a random number is for: streams of different purposes never share a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
enum Purpose {
    Permutation = 1,
    Augmentation = 2,
    Dropout = 3,
    Initialisation = 4,
    Split = 5,
}

/// An endless sequence of random words, any of which is computed directly.
///
/// Word `i` is lane `i % 4` of the Philox block with counter `[i / 4, a, b, purpose]` and the seed
/// as key, low half first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    key: [u32; 2],
    coordinates: [u32; 2],
    purpose: Purpose,
}

impl Stream {
    fn new(seed: u64, purpose: Purpose, coordinates: [u32; 2]) -> Self {
        Self { key: [seed as u32, (seed >> 32) as u32], coordinates, purpose }
    }

    /// The order of the images within an epoch.
    pub fn permutation(seed: u64, epoch: Epoch) -> Self {
        Self::new(seed, Purpose::Permutation, [low32(epoch.0), 0])
    }

    /// The crop, colours and so on of one image in one epoch.
    pub fn augmentation(seed: u64, epoch: Epoch, sample: SampleId) -> Self {
        Self::new(seed, Purpose::Augmentation, [low32(epoch.0), sample.0])
    }

    /// The mask of dropout layer number `layer` (counted from 0 along the network); word `i`
    /// decides element `i`.
    pub fn dropout(seed: u64, step: GlobalStep, replica: ReplicaId, layer: u16) -> Self {
        assert!(replica.0 < 1 << 16, "{replica} is beyond the limit of 65,535");
        Self::new(seed, Purpose::Dropout, [low32(step.0), replica.0 << 16 | u32::from(layer)])
    }

    /// The initial values of parameter number `param` of the layout; block `i` is for element `i`.
    pub fn initialisation(seed: u64, param: u32, attempt: u32) -> Self {
        Self::new(seed, Purpose::Initialisation, [param, attempt])
    }

    /// The split of one class's images into training and validation; `class` counts from 0.
    pub fn split(seed: u64, class: u32) -> Self {
        Self::new(seed, Purpose::Split, [class, 0])
    }

    /// Key and counter words 1 to 3, as a kernel needs them: block `i` has counter `[i, words..]`.
    pub fn parts(&self) -> ([u32; 2], [u32; 3]) {
        (self.key, [self.coordinates[0], self.coordinates[1], self.purpose as u32])
    }

    /// Words `4 * index` to `4 * index + 3`.
    pub fn block(&self, index: u32) -> [u32; 4] {
        let (key, [a, b, purpose]) = self.parts();
        philox4x32([index, a, b, purpose], key)
    }

    /// Word `index`.
    pub fn word(&self, index: u32) -> u32 {
        self.block(index / 4)[index as usize % 4]
    }

    /// Uniform in [0, 1): the upper 24 bits of word `index`, exact in f32.
    pub fn unit(&self, index: u32) -> f32 {
        unit(self.word(index))
    }

    /// Uniform in 0..`bound`: the upper half of word * bound, off by at most bound / 2^32.
    pub fn below(&self, index: u32, bound: u32) -> u32 {
        below(self.word(index), bound)
    }
}

/// Uniform in [0, 1) from one random word: its upper 24 bits, exact in f32.
pub fn unit(word: u32) -> f32 {
    (word >> 8) as f32 * (1.0 / 16_777_216.0)
}

/// Uniform in 0..`bound` from one random word.
pub fn below(word: u32, bound: u32) -> u32 {
    ((u64::from(word) * u64::from(bound)) >> 32) as u32
}

/// The numbers 0..`len` in the order of `stream`: Fisher-Yates from the end, word `i` deciding
/// place `i`.
pub fn permutation(stream: &Stream, len: u32) -> Vec<u32> {
    let mut order: Vec<u32> = (0..len).collect();
    for place in (1..len).rev() {
        order.swap(place as usize, stream.below(place, place + 1) as usize);
    }
    order
}

/// Standard normal truncated at two standard deviations, as f64.
///
/// Box-Muller over the blocks `element` of attempts 0, 1, ...; `libm` gives the same bits
/// everywhere.
pub fn truncated_normal(seed: u64, param: u32, element: u32) -> f64 {
    for attempt in 0.. {
        let words = Stream::initialisation(seed, param, attempt).block(element);
        for pair in [[words[0], words[1]], [words[2], words[3]]] {
            let radius = libm::sqrt(-2.0 * libm::log((f64::from(pair[0]) + 0.5) / 4_294_967_296.0));
            let angle = std::f64::consts::TAU * f64::from(pair[1]) / 4_294_967_296.0;
            for value in [radius * libm::cos(angle), radius * libm::sin(angle)] {
                if value.abs() < 2.0 {
                    return value;
                }
            }
        }
    }
    unreachable!("each attempt succeeds with probability above 0.99")
}

/// Steps and epochs are counted in u64 but drawn from in u32: far beyond any run.
fn low32(value: u64) -> u32 {
    u32::try_from(value).expect("no run reaches 2^32 steps or epochs")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers of the Random123 distribution that comes with the paper (kat_vectors).
    #[test]
    fn philox_known_answers() {
        assert_eq!(
            philox4x32([0; 4], [0; 2]),
            [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]
        );
        assert_eq!(
            philox4x32([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            philox4x32(
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0]
            ),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn a_permutation_holds_every_number_once_and_depends_on_seed_and_epoch() {
        let of = |seed, epoch| permutation(&Stream::permutation(seed, Epoch(epoch)), 1000);
        let mut sorted = of(1, 0);
        sorted.sort_unstable();
        assert_eq!(sorted, (0..1000).collect::<Vec<_>>());
        assert_eq!(of(1, 0), of(1, 0));
        assert_ne!(of(1, 0), of(1, 1));
        assert_ne!(of(1, 0), of(2, 0));
        assert!(permutation(&Stream::permutation(1, Epoch(0)), 0).is_empty());
    }

    #[test]
    fn truncated_normal_has_the_moments_of_its_law() {
        let n = 100_000;
        let values: Vec<f64> = (0..n).map(|i| truncated_normal(7, 3, i)).collect();
        let mean = values.iter().sum::<f64>() / f64::from(n);
        let var = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / f64::from(n);
        assert!(mean.abs() < 0.01, "mean {mean}");
        // The standard deviation of a normal law cut at two is 0.8796.
        assert!((var.sqrt() - 0.8796).abs() < 0.01, "sd {}", var.sqrt());
        assert!(values.iter().all(|v| v.abs() < 2.0));
    }
}
