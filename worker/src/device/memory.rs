//! Buffers in host memory, and views of them as matrices of pixels.

use std::ops::Range;

use super::{Buffer, Float, Operand, Request, Span, Tensor};

/// The buffers of a device whose memory is the host's.
#[derive(Debug, Default)]
pub(super) struct Memory<T> {
    buffers: Vec<Vec<T>>,
}

impl<T: Float> Memory<T> {
    /// Each in memory of its own: what a program may share is not worth the copies here.
    pub(super) fn alloc(&mut self, requests: &[Request]) -> Vec<Buffer> {
        let made = |request: &Request| {
            self.buffers.push(vec![T::ZERO; request.len]);
            Buffer::numbered(self.buffers.len() - 1, request.format)
        };
        requests.iter().map(made).collect()
    }

    pub(super) fn span(&self, span: Span) -> &[T] {
        &self.buffers[span.buffer.number()][span.range()]
    }

    pub(super) fn span_mut(&mut self, span: Span) -> &mut [T] {
        &mut self.buffers[span.buffer.number()][span.range()]
    }

    pub(super) fn view(&self, tensor: Tensor) -> View<'_, T> {
        View { data: &self.buffers[tensor.buffer.number()][tensor.range()], tensor }
    }

    /// Calls `write` with the numbers of `tensor`, from its first to its last pixel, and everything
    /// else to read from. No primitive reads the buffer that it writes.
    pub(super) fn write<R>(
        &mut self,
        tensor: Tensor,
        write: impl FnOnce(&Self, &mut [T]) -> R,
    ) -> R {
        let mut taken = std::mem::take(&mut self.buffers[tensor.buffer.number()]);
        let result = write(self, &mut taken[tensor.range()]);
        self.buffers[tensor.buffer.number()] = taken;
        result
    }

    /// As [`Memory::write`], for a tensor and perhaps another one in a buffer of its own.
    pub(super) fn write_both<R>(
        &mut self,
        tensor: Tensor,
        other: Option<Tensor>,
        write: impl FnOnce(&Self, &mut [T], Option<&mut [T]>) -> R,
    ) -> R {
        let index = |tensor: Tensor| tensor.buffer.number();
        let mut taken = std::mem::take(&mut self.buffers[index(tensor)]);
        let mut other = other.map(|other| (other, std::mem::take(&mut self.buffers[index(other)])));
        let second = other.as_mut().map(|(tensor, values)| &mut values[tensor.range()]);
        let result = write(self, &mut taken[tensor.range()], second);
        self.buffers[index(tensor)] = taken;
        if let Some((tensor, values)) = other {
            self.buffers[index(tensor)] = values;
        }
        result
    }

    /// Copies one tensor to another, in a buffer of its own.
    pub(super) fn copy(&mut self, from: Tensor, to: Tensor) {
        self.write(to, |memory, out| {
            let rows = rows_mut(out, to).zip(memory.view(from).rows());
            rows.for_each(|(out, from)| out.copy_from_slice(from));
        });
    }

    /// As [`Memory::write`], for a span.
    pub(super) fn write_span<R>(
        &mut self,
        span: Span,
        write: impl FnOnce(&Self, &mut [T]) -> R,
    ) -> R {
        let mut taken = std::mem::take(&mut self.buffers[span.buffer.number()]);
        let result = write(self, &mut taken[span.range()]);
        self.buffers[span.buffer.number()] = taken;
        result
    }
}

impl Span {
    fn range(&self) -> Range<usize> {
        self.offset..self.offset + self.len
    }
}

impl Tensor {
    /// From its first number to its last; other channels of a wider tensor lie between.
    fn range(&self) -> Range<usize> {
        Operand::from(*self).hull().range()
    }
}

/// A tensor to read.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a, T> {
    /// From its first number to its last.
    pub(super) data: &'a [T],
    /// Its sizes.
    pub(super) tensor: Tensor,
}

impl<'a, T> View<'a, T> {
    /// The channels of pixel (n, y, x).
    pub(super) fn pixel(&self, n: usize, y: usize, x: usize) -> &'a [T] {
        &self.data[self.tensor.pixel([n, y, x])..][..self.tensor.shape.c]
    }

    /// The channels of every pixel of every image in order.
    pub(super) fn rows(self) -> impl Iterator<Item = &'a [T]> {
        rows(self.data, self.tensor)
    }
}

/// The channels of every pixel of `data`, which begins at a pixel of `tensor`.
pub(super) fn rows<T>(data: &[T], tensor: Tensor) -> impl Iterator<Item = &[T]> {
    data.chunks(tensor.ld).map(move |row| &row[..tensor.shape.c])
}

/// As [`rows`], to overwrite.
pub(super) fn rows_mut<T>(data: &mut [T], tensor: Tensor) -> impl Iterator<Item = &mut [T]> {
    data.chunks_mut(tensor.ld).map(move |row| &mut row[..tensor.shape.c])
}
