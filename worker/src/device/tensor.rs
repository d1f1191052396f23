//! Descriptors: which numbers of which buffer a primitive reads or overwrites.

use std::ops::RangeInclusive;

use hw2_common::model::Shape;

/// How the numbers of a buffer lie in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// As the device computes.
    #[default]
    Full,
    /// bfloat16: the upper half of an f32, rounded to nearest even.
    Bf16,
    /// Whole numbers from 0 to 255. Where memory is no concern they may as well lie there in full.
    Byte,
}

/// A flat piece of device memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    number: u32,
    /// Of its numbers.
    pub format: Format,
}

impl Buffer {
    /// The buffer that a device makes after `number` others.
    pub fn numbered(number: usize, format: Format) -> Self {
        let number = u32::try_from(number).expect("a network has few buffers");
        Self { number, format }
    }

    /// How many others were made before it.
    pub fn number(self) -> usize {
        self.number as usize
    }
}

/// A buffer to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// How many numbers.
    pub len: usize,
    /// Of each.
    pub format: Format,
    /// The first and the last operation that touches it, by their places in whatever order of
    /// operations the other requests mean too; outside of them its memory may be another buffer's,
    /// and at first it holds anything. None: it is there for good, and holds zeros at first.
    pub used: Option<RangeInclusive<usize>>,
}

impl Request {
    /// For good.
    pub fn lasting(len: usize) -> Self {
        Self { len, format: Format::Full, used: None }
    }

    /// The buffers that a device without any makes of `requests`.
    pub fn buffers(requests: &[Self]) -> Vec<Buffer> {
        let numbered = requests.iter().enumerate();
        numbered.map(|(number, request)| Buffer::numbered(number, request.format)).collect()
    }
}

/// Consecutive numbers of a buffer: a parameter, a statistic, a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Where they are.
    pub buffer: Buffer,
    /// Index of the first.
    pub offset: usize,
    /// How many.
    pub len: usize,
}

/// Activations of `n` images: element (n, y, x, c) lies at `offset + ((n * h + y) * w + x) * ld +
/// c`.
///
/// With `ld` above c it is a slice of the channels of a wider tensor, which is how the branches of
/// an inception block write straight into their concatenation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Where it is.
    pub buffer: Buffer,
    /// Index of element (0, 0, 0, 0).
    pub offset: usize,
    /// Images.
    pub n: usize,
    /// (h, w, c) of one image.
    pub shape: Shape,
    /// Leading dimension: numbers from one pixel to the next.
    pub ld: usize,
}

impl Tensor {
    /// A whole buffer of at least n * h * w * c numbers as one tensor.
    pub fn new(buffer: Buffer, n: usize, shape: Shape) -> Self {
        Self { buffer, offset: 0, n, shape, ld: shape.c }
    }

    /// Channels `start` to `start + c` of every pixel.
    pub fn channels(&self, start: usize, c: usize) -> Self {
        assert!(start + c <= self.shape.c, "channels {start} + {c} of {self:?}");
        Self { offset: self.offset + start, shape: Shape { c, ..self.shape }, ..*self }
    }

    /// Three tensors that lie side by side, in order, as the one that they are.
    pub fn joined(parts: [Self; 3]) -> Self {
        let first = parts[0];
        let mut c = 0;
        for part in parts {
            let place = Self { offset: first.offset + c, shape: part.shape, ..first };
            assert_eq!(part, place, "{part:?} does not follow");
            c += part.shape.c;
        }
        Self { shape: Shape { c, ..first.shape }, ..first }
    }

    /// The first `n` images.
    pub fn first(&self, n: usize) -> Self {
        assert!(n <= self.n, "{n} images of {self:?}");
        Self { n, ..*self }
    }

    /// Pixels of all images: the rows of the matrix (n * h * w, c) that this tensor is too.
    pub fn rows(&self) -> usize {
        self.n * self.shape.h * self.shape.w
    }

    /// Index of the first number of pixel (n, y, x), counted from that of the first pixel.
    pub fn pixel(&self, [n, y, x]: [usize; 3]) -> usize {
        ((n * self.shape.h + y) * self.shape.w + x) * self.ld
    }

    /// All its numbers, which must lie together.
    pub fn span(&self) -> Span {
        assert_eq!(self.ld, self.shape.c, "{self:?} is not contiguous");
        Span { buffer: self.buffer, offset: self.offset, len: self.rows() * self.shape.c }
    }
}

/// What slides over an image: k x k, with padding SAME as TensorFlow means it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Rows and columns.
    pub kernel_size: usize,
    /// From one place to the next.
    pub stride: usize,
}

impl Window {
    /// That of a [`Pointwise`] convolution: a pixel, and every pixel.
    pub const POINT: Self = Self { kernel_size: 1, stride: 1 };

    /// Places along an edge of `len` pixels.
    pub fn places(&self, len: usize) -> usize {
        len.div_ceil(self.stride)
    }

    /// Pixels of padding before an edge of `len` pixels; the odd extra one goes behind it.
    pub fn padding(&self, len: usize) -> usize {
        ((self.places(len) - 1) * self.stride + self.kernel_size).saturating_sub(len) / 2
    }
}

/// What a convolution does to its result before it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Epilogue {
    /// Nothing.
    None,
    /// Adds a bias (co).
    Bias(Span),
    /// Adds a bias (co) and takes the larger of that and 0.
    BiasRelu(Span),
    /// Nothing, but mean and variance (co) over (n, oh, ow) are written too.
    Moments {
        /// Mean (co).
        mean: Span,
        /// Biased variance (co).
        var: Span,
    },
}

/// One of three convolutions of kernel size and stride 1 that read the same tensor, as at the head
/// of an inception block. Their outputs are channels side by side, in order, of one wider tensor,
/// so that a device may make all three by one product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pointwise {
    /// (ci, co).
    pub weight: Span,
    /// What follows the sum.
    pub epilogue: Epilogue,
    /// (n, h, w, co).
    pub output: Tensor,
}

/// The way back through a [`Pointwise`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PointwiseGrad {
    /// (n, h, w, co), side by side as the outputs.
    pub grad_output: Tensor,
    /// (ci, co): the weight, or its gradient.
    pub weight: Span,
}

/// Whether a result replaces what was there or is added to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Update {
    /// Replaces it.
    Overwrite,
    /// Is added to it.
    Add,
}

/// Per-channel numbers (c) of a batch normalisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchNorm {
    /// Mean to subtract.
    pub mean: Span,
    /// Biased variance.
    pub var: Span,
    /// Scale.
    pub weight: Span,
    /// Shift.
    pub bias: Span,
}

/// Which numbers share one decision of a dropout, and how it falls.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mask {
    /// Probability that a number stays.
    pub keep: f32,
    /// Whether whole feature maps stay or go: decision n * c_len + c instead of one per number.
    pub spatial: bool,
    /// Number of the dropout layer, counted from 0 along the network.
    pub layer: u16,
}

/// Sizes of a matrix product c (m, n) = a (m, k) * b (k, n).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gemm {
    /// Rows of c.
    pub m: usize,
    /// Columns of c.
    pub n: usize,
    /// Columns of a, rows of b.
    pub k: usize,
    /// Whether a is given as its transpose (k, m).
    pub transpose_a: bool,
    /// Whether b is given as its transpose (n, k).
    pub transpose_b: bool,
}
