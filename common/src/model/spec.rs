//! `[model]` as it is written in the config.

use serde::{Deserialize, Serialize};

/// What `[model]` holds. The number of classes is the dataset's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    /// Rows and columns of the square input image.
    pub image_size: usize,
    /// The blocks in the order in which an image passes them.
    pub blocks: Vec<Block>,
}

/// One `[[model.blocks]]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Block {
    /// Convolutions, each followed by BN and ReLU.
    ConvStack {
        /// Prefix of its parameters' names.
        name: String,
        /// The convolutions; number i is called conv{i}, from 1.
        layers: Vec<ConvSpec>,
    },
    /// The largest of each window.
    MaxPool {
        /// For people only: it has no parameters.
        name: String,
        /// Rows and columns of the window.
        kernel_size: usize,
        /// Step of the window.
        stride: usize,
    },
    /// 1x1; 1x1, ReLU, 3x3; 1x1, ReLU, 5x5; max 3x3, 1x1: concatenated, then BN and ReLU.
    InceptionV1 {
        /// Prefix of its parameters' names.
        name: String,
        /// Output channels of the four branches.
        branches: [usize; 4],
        /// Channels between a branch's 1x1 and its larger convolution.
        bottleneck: usize,
    },
    /// As v1 with two 3x3 in place of the 5x5.
    InceptionV2 {
        /// Prefix of its parameters' names.
        name: String,
        /// Output channels of the four branches.
        branches: [usize; 4],
        /// Channels between a branch's 1x1 and its larger convolution.
        bottleneck: usize,
    },
    /// Drops whole feature maps and scales the others by 1 / keep.
    SpatialDropout {
        /// For people only.
        name: String,
        /// Probability that a map stays.
        keep: f32,
    },
    /// Fully connected without bias, BN, dropout, ReLU.
    Dense {
        /// Prefix of its parameters' names.
        name: String,
        /// Output values.
        units: usize,
        /// Probability that a value stays.
        keep: f32,
        /// Factor of the sum of squared weights / 2 in the loss.
        weight_decay: f64,
    },
    /// Fully connected with bias, to one logit per class, and softmax cross-entropy. Comes last.
    SoftmaxLinear {
        /// Prefix of its parameters' names.
        name: String,
    },
}

/// One convolution of a conv_stack.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConvSpec {
    /// Output channels.
    pub channels: usize,
    /// Rows and columns of the window.
    pub kernel_size: usize,
    /// Step of the window.
    pub stride: usize,
}

impl Block {
    /// The block's name.
    pub fn name(&self) -> &str {
        match self {
            Self::ConvStack { name, .. }
            | Self::MaxPool { name, .. }
            | Self::InceptionV1 { name, .. }
            | Self::InceptionV2 { name, .. }
            | Self::SpatialDropout { name, .. }
            | Self::Dense { name, .. }
            | Self::SoftmaxLinear { name } => name,
        }
    }
}

impl Default for ModelSpec {
    /// The ten-layer network for 100x100 images: 2,958,689 parameters with 65 classes.
    fn default() -> Self {
        let pool = |name: &str| Block::MaxPool { name: name.into(), kernel_size: 3, stride: 2 };
        let conv = |channels, stride| ConvSpec { channels, kernel_size: 3, stride };
        let inception = |name: &str, branches, bottleneck| Block::InceptionV2 {
            name: name.into(),
            branches,
            bottleneck,
        };
        let dropout = |name: &str| Block::SpatialDropout { name: name.into(), keep: 0.75 };
        Self {
            image_size: 100,
            blocks: vec![
                Block::ConvStack {
                    name: "conv_stack1".into(),
                    layers: vec![conv(64, 1), conv(128, 2)],
                },
                pool("pool1"),
                inception("inception2", [64, 96, 96, 64], 64),
                pool("pool2"),
                dropout("dropout2"),
                inception("inception3", [32, 64, 64, 32], 96),
                pool("pool3"),
                dropout("dropout3"),
                Block::Dense { name: "dense1".into(), units: 256, keep: 0.5, weight_decay: 1e-3 },
                Block::SoftmaxLinear { name: "softmax_linear".into() },
            ],
        }
    }
}

/// Why a `[model]` means no network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("model{}: {problem}", .block.as_ref().map(|name| format!(", block `{name}`")).unwrap_or_default())]
pub struct ModelError {
    /// The block at fault; none when it is the whole.
    pub block: Option<String>,
    /// What is wrong, with the value, and what would be right.
    pub problem: String,
}
