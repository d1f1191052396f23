//! The model as data: blocks as the config writes them, and the network they mean.

mod network;
mod spec;

pub use network::{Branch, Conv, Epilogue, Layer, LayerKind, Network};
pub use spec::{Block, ConvSpec, ModelError, ModelSpec};

/// Size of one image's activation, (h, w, c).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Rows.
    pub h: usize,
    /// Columns.
    pub w: usize,
    /// Channels.
    pub c: usize,
}

impl Shape {
    /// Values of one image.
    pub fn len(&self) -> usize {
        self.h * self.w * self.c
    }

    /// Whether there are no values at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The output of a convolution or pooling with padding SAME: ceil(size / stride), and `c`
    /// channels.
    pub fn same(&self, stride: usize, c: usize) -> Self {
        Self { h: self.h.div_ceil(stride), w: self.w.div_ceil(stride), c }
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}x{}", self.h, self.w, self.c)
    }
}
