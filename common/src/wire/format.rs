//! How numbers travel: as they are, or rounded to bfloat16, which has half the bytes.

use std::ops::Range;

use half::bf16;
use hw2_proto::v1::VectorKind;

use crate::config::WireFormat;

const F32_BYTES: usize = size_of::<f32>();
const BF16_BYTES: usize = size_of::<u16>();

/// Numbers as they travel: little-endian, at any alignment.
#[derive(Clone, Copy, Debug)]
pub struct Values<'a> {
    bytes: &'a [u8],
    format: WireFormat,
}

impl WireFormat {
    /// In which a vector of `kind` travels in a run whose format is this one: weights and gradients
    /// do. All else is rare or small, and exact.
    pub fn of(self, kind: VectorKind) -> Self {
        match kind {
            VectorKind::Weights | VectorKind::Gradient => self,
            VectorKind::Unspecified
            | VectorKind::Ema
            | VectorKind::Buffers
            | VectorKind::BatchStatistics => Self::F32,
        }
    }

    /// Bytes of a number.
    pub const fn bytes(self) -> usize {
        match self {
            Self::F32 => F32_BYTES,
            Self::Bf16 => BF16_BYTES,
        }
    }
}

impl<'a> Values<'a> {
    /// Of so many bytes, which are whole numbers.
    pub fn new(bytes: &'a [u8], format: WireFormat) -> Self {
        Self { bytes, format }
    }

    /// Of numbers in memory.
    pub fn of(values: &'a [f32]) -> Self {
        Self::new(bytemuck::cast_slice(values), WireFormat::F32)
    }

    /// As they travel.
    pub fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// How many.
    pub fn len(self) -> usize {
        self.bytes.len() / self.format.bytes()
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.bytes.is_empty()
    }

    /// Some of them.
    pub fn slice(self, range: Range<usize>) -> Self {
        let size = self.format.bytes();
        Self { bytes: &self.bytes[range.start * size..range.end * size], ..self }
    }

    /// They are f32: their bytes.
    pub fn as_f32(self) -> Option<&'a [[u8; F32_BYTES]]> {
        (self.format == WireFormat::F32).then_some(self.bytes.as_chunks().0)
    }

    /// Copies all of them to `to`.
    ///
    /// # Panics
    /// If the lengths differ.
    #[inline(always)]
    pub fn copy_to(self, to: &mut [f32]) {
        assert_eq!(to.len(), self.len(), "room for the numbers");
        match self.format {
            WireFormat::F32 => bytemuck::cast_slice_mut(to).copy_from_slice(self.bytes),
            WireFormat::Bf16 => {
                let values = self.bytes.as_chunks().0;
                to.iter_mut().zip(values).for_each(|(to, value)| *to = from_bf16(*value));
            }
        }
    }

    /// Adds each to that of `sum`.
    ///
    /// # Panics
    /// If the lengths differ.
    #[inline(always)]
    pub fn add_to(self, sum: &mut [f32]) {
        assert_eq!(sum.len(), self.len(), "a sum for each number");
        match self.format {
            WireFormat::F32 => {
                let values = self.bytes.as_chunks().0;
                sum.iter_mut()
                    .zip(values)
                    .for_each(|(sum, value)| *sum += f32::from_le_bytes(*value));
            }
            WireFormat::Bf16 => {
                let values = self.bytes.as_chunks().0;
                sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += from_bf16(*value));
            }
        }
    }

    /// Whether all of them fit; each is looked at, so that it can be done in vectors.
    #[inline(always)]
    pub fn all(self, fits: impl Fn(f32) -> bool) -> bool {
        match self.format {
            WireFormat::F32 => {
                let values = self.bytes.as_chunks().0.iter();
                values.fold(true, |all, value| all & fits(f32::from_le_bytes(*value)))
            }
            WireFormat::Bf16 => {
                let values = self.bytes.as_chunks().0.iter();
                values.fold(true, |all, value| all & fits(from_bf16(*value)))
            }
        }
    }

    /// One of them.
    pub fn at(self, index: usize) -> f32 {
        let mut value = [0.0];
        self.slice(index..index + 1).copy_to(&mut value);
        value[0]
    }
}

/// Writes `values` as they travel to `to`: rounded to the nearest, and of two to the even one.
///
/// # Panics
/// If `to` has not as many bytes as they need.
#[inline(always)]
pub fn encode(values: &[f32], to: &mut [u8], format: WireFormat) {
    assert_eq!(to.len(), values.len() * format.bytes(), "room for the numbers");
    match format {
        WireFormat::F32 => to.copy_from_slice(bytemuck::cast_slice(values)),
        WireFormat::Bf16 => {
            let to = to.as_chunks_mut().0;
            to.iter_mut().zip(values).for_each(|(to, value)| *to = to_bf16(*value));
        }
    }
}

#[inline(always)]
fn to_bf16(value: f32) -> [u8; BF16_BYTES] {
    bf16::from_f32(value).to_le_bytes()
}

#[inline(always)]
fn from_bf16(value: [u8; BF16_BYTES]) -> f32 {
    // All of them are f32 too: the upper half of one.
    f32::from_bits(u32::from(u16::from_le_bytes(value)) << 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// (number, as bfloat16): a tie to the even one below and above, more than a tie, the largest
    /// f32.
    const CASES: [(f32, f32); 8] = [
        (0.0, 0.0),
        (-1.0, -1.0),
        (1.0 + 1.0 / 256.0, 1.0),
        (1.0 + 3.0 / 256.0, 1.0 + 4.0 / 256.0),
        (-1.0 - 1.01 / 256.0, -1.0 - 2.0 / 256.0),
        (f32::MAX, f32::INFINITY),
        (f32::NEG_INFINITY, f32::NEG_INFINITY),
        (1e-40, f32::from_bits(0x0001_0000)),
    ];

    #[test]
    fn numbers_travel_at_any_alignment() {
        let values = CASES.map(|(value, _)| value);
        for format in [WireFormat::F32, WireFormat::Bf16] {
            let mut bytes = vec![0; 1 + values.len() * format.bytes()];
            encode(&values, &mut bytes[1..], format);
            let arrived = Values::new(&bytes[1..], format);
            assert_eq!(arrived.len(), values.len());
            let mut decoded = [f32::NAN; CASES.len()];
            arrived.copy_to(&mut decoded);
            let mut doubled = decoded;
            arrived.add_to(&mut doubled);
            for (index, (value, rounded)) in CASES.into_iter().enumerate() {
                let expected = if format == WireFormat::F32 { value } else { rounded };
                assert_eq!(decoded[index], expected, "{value} in {format}");
                assert_eq!(arrived.at(index), decoded[index]);
                assert_eq!(doubled[index], 2.0 * decoded[index]);
            }
            assert!(
                arrived.slice(0..5).all(f32::is_finite) && !arrived.slice(3..7).all(f32::is_finite)
            );
        }
    }

    #[test]
    fn a_nan_stays_one() {
        for nan in [f32::NAN, f32::from_bits(0x7f80_0001), f32::from_bits(0xffff_ffff)] {
            let mut bytes = [0; 2];
            encode(&[nan], &mut bytes, WireFormat::Bf16);
            assert!(Values::new(&bytes, WireFormat::Bf16).at(0).is_nan(), "{nan:?}");
        }
    }
}
