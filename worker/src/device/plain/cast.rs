//! From one format to another.

use crate::device::memory::Memory;
use crate::device::{Float, Format, Operand, Span};

pub(in crate::device) fn cast<T: Float>(memory: &mut Memory<T>, input: Span, output: Span) {
    memory.write_span(output, |memory, output| output.copy_from_slice(memory.span(input)));
}

/// Makes `operand` what its buffer can hold.
pub(super) fn round<T: Float>(memory: &mut Memory<T>, operand: Operand) {
    if operand.buffer.format == Format::Bf16 {
        let values = memory.span_mut(operand.hull());
        for row in values.chunks_mut(operand.ld) {
            row[..operand.row_len].iter_mut().for_each(|value| *value = to_bf16(*value));
        }
    }
}

fn to_bf16<T: Float>(value: T) -> T {
    T::from_f64(half::bf16::from_f32(value.to_f64() as f32).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_is_taken_and_of_two_the_even_one() {
        // (number, rounded): 1, ties to even below and above, more than a tie, the largest f32.
        let cases = [
            (1.0, 1.0),
            (1.0 + 1.0 / 256.0, 1.0),
            (1.0 + 3.0 / 256.0, 1.0 + 4.0 / 256.0),
            (1.0 + 1.01 / 256.0, 1.0 + 2.0 / 256.0),
            (-1.0 - 1.01 / 256.0, -1.0 - 2.0 / 256.0),
            (f64::from(f32::MAX), f64::INFINITY),
        ];
        for (number, rounded) in cases {
            assert_eq!(to_bf16(number), rounded, "{number}");
        }
        assert!(to_bf16(f64::NAN).is_nan());
    }
}
