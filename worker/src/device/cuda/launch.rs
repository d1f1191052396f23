//! What the GPU is asked to do, as data: kernels with their arguments, and matrix products.

use std::fmt;

use crate::device::{Buffer, Format, Operand, Span, Tensor, Window};

/// Bytes of two f64 side by side.
pub(super) const PAIR_BYTES: usize = 16;

/// What can be done at once, each in an order of its own.
pub(super) const LANES: usize = 2;

/// One thing for a stream to do.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Launch {
    pub(super) task: Task,
    pub(super) traffic: Traffic,
    /// After those before it in this lane, but beside those of others; or after all before it, and
    /// before all that follow.
    pub(super) lane: Option<usize>,
}

/// What it is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Task {
    Kernel(Kernel),
    Product(Product),
}

/// A kernel with its blocks and their threads, or a product with m, n and k.
impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel(Kernel { name, grid: [x, y], block: [bx, by], .. }) => {
                write!(f, "{name} {x}x{y}x1 {bx}x{by}x1")
            }
            Self::Product(Product { m, n, k, .. }) => write!(f, "gemm {m}x{n}x{k}"),
        }
    }
}

/// Bytes that a launch reads from device memory and writes to it, each number once however often it
/// is used. Columns are apart: they need not leave the cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Traffic {
    pub(super) read: usize,
    pub(super) written: usize,
    /// Read or written.
    pub(super) columns: usize,
}

impl Traffic {
    /// `operand` is read too.
    pub(super) fn reads(self, operand: impl Into<Operand>) -> Self {
        Self { read: self.read + bytes(operand.into()), ..self }
    }

    /// `operand` is written too.
    pub(super) fn writes(self, operand: impl Into<Operand>) -> Self {
        Self { written: self.written + bytes(operand.into()), ..self }
    }

    /// `operand` is read and written too.
    pub(super) fn updates(self, operand: impl Into<Operand> + Copy) -> Self {
        self.reads(operand).writes(operand)
    }

    /// And a pair of f64 for each of `count`, read.
    pub(super) fn reads_pairs(self, count: usize) -> Self {
        Self { read: self.read + PAIR_BYTES * count, ..self }
    }

    /// And a pair of f64 for each of `count`, written.
    pub(super) fn writes_pairs(self, count: usize) -> Self {
        Self { written: self.written + PAIR_BYTES * count, ..self }
    }

    /// And so many bytes of columns.
    pub(super) fn columns(self, bytes: usize) -> Self {
        Self { columns: self.columns + bytes, ..self }
    }
}

/// Bytes of a number.
pub(super) fn number_bytes(format: Format) -> usize {
    match format {
        Format::Full => 4,
        Format::Bf16 => 2,
        Format::Byte => 1,
    }
}

fn bytes(operand: Operand) -> usize {
    number_bytes(operand.buffer.format) * operand.len()
}

impl Product {
    /// Multiplications and additions.
    pub(super) fn flops(&self) -> u64 {
        (2 * self.m * self.n * self.k) as u64
    }

    /// Every number once.
    pub(super) fn traffic(&self) -> Traffic {
        let Self { m, n, k, format, result, .. } = *self;
        let mut traffic = Traffic::default();
        let mut add = |place: Place, format: Format, numbers: usize, is_read: bool| {
            let bytes = number_bytes(format) * numbers;
            match (place, is_read) {
                (Place::Buffer { .. }, true) => traffic.read += bytes,
                (Place::Buffer { .. }, false) => traffic.written += bytes,
                _ => traffic = traffic.columns(bytes),
            }
        };
        add(self.a.place, format, m * k, true);
        add(self.b.place, format, k * n, true);
        add(self.c, result, m * n, false);
        if self.beta != 0.0 {
            add(self.c, result, m * n, true);
        }
        traffic
    }
}

/// A launch of one of our kernels.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Kernel {
    pub(super) name: &'static str,
    /// Blocks along x and y.
    pub(super) grid: [u32; 2],
    /// Threads of a block along x and y.
    pub(super) block: [u32; 2],
    pub(super) args: Vec<Arg>,
}

/// c (m, n) = a (m, k) * b (k, n) + beta * c, all column-major, as cuBLAS means it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Product {
    pub(super) m: usize,
    pub(super) n: usize,
    pub(super) k: usize,
    pub(super) a: Matrix,
    pub(super) b: Matrix,
    /// Of a and b.
    pub(super) format: Format,
    pub(super) beta: f32,
    pub(super) c: Place,
    /// Format of c.
    pub(super) result: Format,
    /// Numbers from one column of c to the next.
    pub(super) ldc: usize,
}

/// An operand of a product.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Matrix {
    pub(super) place: Place,
    /// Numbers from one column to the next.
    pub(super) ld: usize,
    /// Whether it is given as its transpose.
    pub(super) transposed: bool,
}

/// An address on the device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Place {
    /// Number `offset` of a buffer.
    Buffer { buffer: Buffer, offset: usize },
    /// Byte `offset` of the workspace, which holds nothing from one operation to the next.
    Workspace { offset: usize },
    /// Memory of the runtime's own.
    Device { address: u64 },
}

/// An argument of a kernel.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Arg {
    Address(Place),
    Null,
    /// The coordinates of dropout.
    Coordinates,
    Int(i32),
    Float(f32),
    Double(f64),
    /// A struct of ints, by value.
    Ints(Vec<i32>),
}

impl From<Span> for Place {
    fn from(span: Span) -> Self {
        Self::Buffer { buffer: span.buffer, offset: span.offset }
    }
}

impl From<Tensor> for Place {
    fn from(tensor: Tensor) -> Self {
        Self::Buffer { buffer: tensor.buffer, offset: tensor.offset }
    }
}

impl<P: Into<Place>> From<P> for Arg {
    fn from(place: P) -> Self {
        Self::Address(place.into())
    }
}

/// Numbers of a tensor.
pub(super) fn numbers(tensor: Tensor) -> usize {
    tensor.rows() * tensor.shape.c
}

/// `struct Matrix` of the kernels: pixels, channels, leading dimension.
pub(super) fn matrix(tensor: Tensor) -> Arg {
    Arg::Ints([tensor.rows(), tensor.shape.c, tensor.ld].map(to_int).to_vec())
}

/// `struct Window` of the kernels, over images of the size of `input`.
pub(super) fn window(window: Window, input: Tensor) -> Arg {
    let Window { kernel_size, stride } = window;
    let (h, w) = (input.shape.h, input.shape.w);
    let ints = [
        kernel_size,
        stride,
        window.padding(h),
        window.padding(w),
        h,
        w,
        window.places(h),
        window.places(w),
    ];
    Arg::Ints(ints.map(to_int).to_vec())
}

pub(super) fn int(value: usize) -> Arg {
    Arg::Int(to_int(value))
}

pub(super) fn to_int(value: usize) -> i32 {
    i32::try_from(value).expect("indices of one tensor fit 31 bits: use smaller batches")
}
