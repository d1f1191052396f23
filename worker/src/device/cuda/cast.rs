//! From one format to another.

use super::launch::{Arg, Kernel, Place, Traffic, int, to_int};
use super::lower::{Lowering, THREADS};
use crate::device::{Format, Span};

pub(super) fn cast(to: &mut Lowering, input: Span, output: Span) {
    let (from, into) = (input.buffer.format, output.buffer.format);
    let kernel = launch(from, input.into(), into, output.into(), input.len);
    to.push(kernel, Traffic::default().reads(input).writes(output));
}

/// The launch that moves `len` numbers.
pub(super) fn launch(from: Format, input: Arg, into: Format, output: Arg, len: usize) -> Kernel {
    rows((from, input, len), (into, output, len), [1, len])
}

/// The launch that moves `rows` of `columns` numbers; what is read and what is written each have a
/// format, an address, and so many numbers from one row to the next.
pub(super) fn rows(
    (from, input, ld): (Format, Arg, usize),
    (into, output, out_ld): (Format, Arg, usize),
    [rows, columns]: [usize; 2],
) -> Kernel {
    let name = kernel(from, into).unwrap_or_else(|| panic!("nobody casts {from:?} to {into:?}"));
    let matrix = Arg::Ints([rows, columns, ld].map(to_int).to_vec());
    let count = rows * columns;
    let args = vec![input, output, matrix, int(out_ld), int(count)];
    let blocks = u32::try_from(count.div_ceil(THREADS)).expect("a tensor has few blocks");
    Kernel { name, grid: [blocks, 1], block: [THREADS as u32, 1], args }
}

/// The launch that copies `weight`, in the format of activations, to `filled` and zeros behind it,
/// up to `len` numbers.
pub(super) fn fill_up(weight: Span, filled: Place, len: usize) -> Kernel {
    let args = vec![weight.into(), filled.into(), int(weight.len), int(len)];
    let blocks = u32::try_from(len.div_ceil(THREADS)).expect("a tensor has few blocks");
    Kernel { name: "fill_up", grid: [blocks, 1], block: [THREADS as u32, 1], args }
}

/// The first numbers at `input`, in full, to `output`.
pub(super) fn shorten(to: &mut Lowering, input: Place, output: Span) {
    let kernel = launch(Format::Full, input.into(), Format::Full, output.into(), output.len);
    to.push(kernel, Traffic::default().writes(output).columns(4 * output.len));
}

/// The sums of numbers at two places, in full, to `output`, which may be one of them.
pub(super) fn add(to: &mut Lowering, a: Place, b: Place, output: Span) {
    let args = vec![a.into(), b.into(), output.into()];
    let traffic = Traffic::default().writes(output).columns(8 * output.len);
    to.for_each("add", output.len, traffic, args);
}

/// The kernel that makes `into` from `from`, if there is one.
fn kernel(from: Format, into: Format) -> Option<&'static str> {
    match (from, into) {
        (Format::Full, Format::Full) => Some("cast_full_full"),
        (Format::Full, Format::Bf16) => Some("cast_full_number"),
        (Format::Full, Format::Byte) => Some("cast_full_byte"),
        (Format::Bf16, Format::Full) => Some("cast_number_full"),
        (Format::Bf16, Format::Bf16) => Some("cast_number_number"),
        (Format::Byte, Format::Full) => Some("cast_byte_full"),
        (Format::Bf16, Format::Byte) | (Format::Byte, Format::Bf16 | Format::Byte) => None,
    }
}
