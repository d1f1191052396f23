//! Which numbers an operation reads or writes, however it names them.

use super::{Buffer, Span, Tensor};

/// Rows of consecutive numbers in a buffer, evenly spaced: a [`Span`] is one row, a [`Tensor`] has
/// one for each pixel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operand {
    /// Where they are.
    pub buffer: Buffer,
    /// Index of the first number.
    pub offset: usize,
    /// How many rows.
    pub rows: usize,
    /// Numbers of a row.
    pub row_len: usize,
    /// Numbers from the beginning of one row to that of the next.
    pub ld: usize,
}

impl Operand {
    /// How many numbers.
    pub fn len(&self) -> usize {
        self.rows * self.row_len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Everything from the first number to the last; other channels of a wider tensor lie between.
    pub fn hull(&self) -> Span {
        let len = (self.rows - 1) * self.ld + self.row_len;
        Span { buffer: self.buffer, offset: self.offset, len }
    }

    /// The rows, from the numbers of the [hull](Self::hull).
    pub fn rows_of<'a, T>(&self, hull: &'a [T]) -> impl Iterator<Item = &'a [T]> + use<'a, T> {
        let row_len = self.row_len;
        hull.chunks(self.ld).map(move |row| &row[..row_len])
    }
}

impl From<Span> for Operand {
    fn from(Span { buffer, offset, len }: Span) -> Self {
        Self { buffer, offset, rows: 1, row_len: len, ld: len }
    }
}

impl From<Tensor> for Operand {
    fn from(tensor: Tensor) -> Self {
        let Tensor { buffer, offset, shape, ld, .. } = tensor;
        Self { buffer, offset, rows: tensor.rows(), row_len: shape.c, ld }
    }
}
