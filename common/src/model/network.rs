//! The network that a [`ModelSpec`] means: every size inferred, every parameter named.
//!
//! The layout of the flat vector and the layers of the worker are both read off this one
//! description.

use super::{Block, ModelError, ModelSpec, Shape};

/// Widest image, channel count or layer the arithmetic is meant for.
const SIZE_MAX: usize = 1 << 16;
/// Most values of one image's activation.
const ACTIVATION_MAX: usize = 1 << 31;
/// Largest convolution or pooling window.
const KERNEL_SIZE_MAX: usize = 15;

/// Layers in order, sizes inferred.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    /// (image_size, image_size, 3).
    pub input: Shape,
    /// Number of logits.
    pub classes: usize,
    /// The blocks of the spec.
    pub layers: Vec<Layer>,
}

/// One block with its sizes.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// The block's name; prefix of its parameters' names.
    pub name: String,
    /// What goes in.
    pub input: Shape,
    /// What comes out.
    pub output: Shape,
    /// What happens between.
    pub kind: LayerKind,
}

/// What a layer does.
#[derive(Clone, Debug, PartialEq)]
pub enum LayerKind {
    /// Convolutions one after the other.
    ConvStack(Vec<Conv>),
    /// Largest of each window, padding SAME.
    MaxPool {
        /// Rows and columns of the window.
        kernel_size: usize,
        /// Step of the window.
        stride: usize,
    },
    /// Branches side by side, concatenated along the channels, then `{name}.bn` and ReLU over the
    /// whole.
    Inception(Vec<Branch>),
    /// Drops feature maps.
    SpatialDropout {
        /// Probability that a map stays.
        keep: f32,
    },
    /// Matrix without bias, `{name}.bn`, dropout, ReLU.
    Dense {
        /// Probability that a value stays.
        keep: f32,
        /// Factor of the sum of squared weights / 2 in the loss.
        weight_decay: f64,
    },
    /// Matrix with bias, softmax cross-entropy.
    SoftmaxLinear,
}

/// One arm of an inception block.
#[derive(Clone, Debug, PartialEq)]
pub struct Branch {
    /// Whether a 3x3 max pool of stride 1 comes first.
    pub pool_first: bool,
    /// Convolutions one after the other.
    pub convs: Vec<Conv>,
}

/// One convolution with padding SAME.
#[derive(Clone, Debug, PartialEq)]
pub struct Conv {
    /// Prefix of its parameters: `{name}.weight`, and what the epilogue needs.
    pub name: String,
    /// Rows and columns of the window.
    pub kernel_size: usize,
    /// Step of the window.
    pub stride: usize,
    /// What goes in.
    pub input: Shape,
    /// What comes out.
    pub output: Shape,
    /// What follows.
    pub epilogue: Epilogue,
}

/// What follows a convolution. One that feeds BN directly has no bias: BN would take it away again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Epilogue {
    /// BN `{name}.bn` and ReLU.
    BnRelu,
    /// `{name}.bias` and ReLU.
    BiasRelu,
    /// `{name}.bias`.
    Bias,
    /// Nothing: the BN of the whole block comes later.
    None,
}

impl Layer {
    /// Multiplications of its matrix products for one image.
    pub fn multiplications(&self) -> usize {
        match &self.kind {
            LayerKind::ConvStack(convs) => convs.iter().map(Conv::multiplications).sum(),
            LayerKind::Inception(branches) => {
                let convs = branches.iter().flat_map(|branch| &branch.convs);
                convs.map(Conv::multiplications).sum()
            }
            LayerKind::Dense { .. } | LayerKind::SoftmaxLinear => {
                self.input.len() * self.output.len()
            }
            LayerKind::MaxPool { .. } | LayerKind::SpatialDropout { .. } => 0,
        }
    }
}

impl Conv {
    fn multiplications(&self) -> usize {
        self.kernel_size.pow(2) * self.input.c * self.output.len()
    }
}

impl ModelSpec {
    /// Infers every size.
    ///
    /// # Errors
    /// Names the block whose sizes, names or order make no network.
    pub fn network(&self, classes: usize) -> Result<Network, ModelError> {
        let whole = |problem: String| ModelError { block: None, problem };
        if !(1..=SIZE_MAX).contains(&self.image_size) {
            return Err(whole(format!(
                "image_size = {} is not within 1 to {SIZE_MAX}",
                self.image_size
            )));
        }
        if !(2..=SIZE_MAX).contains(&classes) {
            return Err(whole(format!(
                "{classes} classes: a classifier needs 2 to {SIZE_MAX}, one folder each"
            )));
        }
        if !matches!(self.blocks.last(), Some(Block::SoftmaxLinear { .. })) {
            return Err(whole("the last block must be of kind softmax_linear".into()));
        }
        let input = Shape { h: self.image_size, w: self.image_size, c: 3 };
        let mut layers: Vec<Layer> = Vec::with_capacity(self.blocks.len());
        for (index, block) in self.blocks.iter().enumerate() {
            let fail = |problem: String| ModelError { block: Some(block.name().into()), problem };
            if layers.iter().any(|layer| layer.name == block.name()) {
                return Err(fail("two blocks have this name".into()));
            }
            check_name(block.name()).map_err(fail)?;
            let shape = layers.last().map_or(input, |layer| layer.output);
            let last = index + 1 == self.blocks.len();
            let layer = plan(block, shape, classes, last).map_err(fail)?;
            if shape.len().max(layer.output.len()) > ACTIVATION_MAX {
                return Err(fail(format!(
                    "{shape} or {} has more than {ACTIVATION_MAX} values an image",
                    layer.output
                )));
            }
            layers.push(layer);
        }
        Ok(Network { input, classes, layers })
    }
}

fn check_name(name: &str) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
    match !name.is_empty() && name.chars().all(fits) {
        true => Ok(()),
        false => Err("a name is made of letters, digits and _".into()),
    }
}

fn check(name: &str, value: usize, max: usize) -> Result<(), String> {
    match (1..=max).contains(&value) {
        true => Ok(()),
        false => Err(format!("{name} = {value} is not within 1 to {max}")),
    }
}

fn check_keep(keep: f32) -> Result<(), String> {
    match keep > 0.0 && keep <= 1.0 {
        true => Ok(()),
        false => Err(format!("keep = {keep} is not above 0 and at most 1")),
    }
}

fn plan(block: &Block, input: Shape, classes: usize, last: bool) -> Result<Layer, String> {
    let (output, kind) = match block {
        Block::ConvStack { name, layers } => {
            if layers.is_empty() {
                return Err("layers = [] holds no convolution".into());
            }
            let mut convs: Vec<Conv> = Vec::with_capacity(layers.len());
            for (index, layer) in layers.iter().enumerate() {
                check("channels", layer.channels, SIZE_MAX)?;
                check("kernel_size", layer.kernel_size, KERNEL_SIZE_MAX)?;
                check("stride", layer.stride, KERNEL_SIZE_MAX)?;
                let input = convs.last().map_or(input, |conv| conv.output);
                convs.push(Conv {
                    name: format!("{name}.conv{}", index + 1),
                    kernel_size: layer.kernel_size,
                    stride: layer.stride,
                    input,
                    output: input.same(layer.stride, layer.channels),
                    epilogue: Epilogue::BnRelu,
                });
            }
            (convs[convs.len() - 1].output, LayerKind::ConvStack(convs))
        }
        Block::MaxPool { kernel_size, stride, .. } => {
            check("kernel_size", *kernel_size, KERNEL_SIZE_MAX)?;
            check("stride", *stride, *kernel_size)?;
            let kind = LayerKind::MaxPool { kernel_size: *kernel_size, stride: *stride };
            (input.same(*stride, input.c), kind)
        }
        Block::InceptionV1 { name, branches, bottleneck } => {
            inception(name, input, branches, *bottleneck, &[("conv5x5", 5)])?
        }
        Block::InceptionV2 { name, branches, bottleneck } => {
            inception(name, input, branches, *bottleneck, &[("conv3x3a", 3), ("conv3x3b", 3)])?
        }
        Block::SpatialDropout { keep, .. } => {
            check_keep(*keep)?;
            (input, LayerKind::SpatialDropout { keep: *keep })
        }
        Block::Dense { units, keep, weight_decay, .. } => {
            check("units", *units, SIZE_MAX)?;
            check_keep(*keep)?;
            if !(*weight_decay >= 0.0 && weight_decay.is_finite()) {
                return Err(format!("weight_decay = {weight_decay} is not a number of at least 0"));
            }
            let kind = LayerKind::Dense { keep: *keep, weight_decay: *weight_decay };
            (Shape { h: 1, w: 1, c: *units }, kind)
        }
        Block::SoftmaxLinear { .. } if !last => {
            return Err("softmax_linear must be the last block".into());
        }
        Block::SoftmaxLinear { .. } => (Shape { h: 1, w: 1, c: classes }, LayerKind::SoftmaxLinear),
    };
    Ok(Layer { name: block.name().into(), input, output, kind })
}

/// The four branches; `large` are the convolutions of the third after its bottleneck.
fn inception(
    name: &str,
    input: Shape,
    channels: &[usize; 4],
    bottleneck: usize,
    large: &[(&str, usize)],
) -> Result<(Shape, LayerKind), String> {
    check("bottleneck", bottleneck, SIZE_MAX)?;
    for width in channels {
        check("branches", *width, SIZE_MAX)?;
    }
    let branch = |number: usize, pool_first: bool, convs: &[(&str, usize, usize, Epilogue)]| {
        let mut shape = input;
        let convs = convs.iter().map(|&(conv, kernel_size, width, epilogue)| {
            let output = shape.same(1, width);
            let name = format!("{name}.branch{number}.{conv}");
            Conv {
                name,
                kernel_size,
                stride: 1,
                input: std::mem::replace(&mut shape, output),
                output,
                epilogue,
            }
        });
        Branch { pool_first, convs: convs.collect() }
    };
    let narrow = ("conv1x1", 1, bottleneck, Epilogue::BiasRelu);
    let mut third = vec![narrow];
    for (index, &(conv, kernel_size)) in large.iter().enumerate() {
        let last = index + 1 == large.len();
        let epilogue = if last { Epilogue::None } else { Epilogue::Bias };
        third.push((conv, kernel_size, channels[2], epilogue));
    }
    let branches = vec![
        branch(1, false, &[("conv1x1", 1, channels[0], Epilogue::None)]),
        branch(2, false, &[narrow, ("conv3x3", 3, channels[1], Epilogue::None)]),
        branch(3, false, &third),
        branch(4, true, &[("conv1x1", 1, channels[3], Epilogue::None)]),
    ];
    Ok((input.same(1, channels.iter().sum()), LayerKind::Inception(branches)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_has_the_sizes_of_the_table() {
        let network = ModelSpec::default().network(65).unwrap();
        let outputs: Vec<String> =
            network.layers.iter().map(|layer| format!("{} {}", layer.name, layer.output)).collect();
        assert_eq!(
            outputs,
            [
                "conv_stack1 50x50x128",
                "pool1 25x25x128",
                "inception2 25x25x320",
                "pool2 13x13x320",
                "dropout2 13x13x320",
                "inception3 13x13x192",
                "pool3 7x7x192",
                "dropout3 7x7x192",
                "dense1 1x1x256",
                "softmax_linear 1x1x65",
            ]
        );
    }

    #[test]
    fn what_makes_no_network_is_named() {
        let with = |change: &dyn Fn(&mut ModelSpec)| {
            let mut spec = ModelSpec::default();
            change(&mut spec);
            spec.network(65).unwrap_err().to_string()
        };
        assert_eq!(
            with(&|spec| spec.image_size = 0),
            "model: image_size = 0 is not within 1 to 65536"
        );
        assert_eq!(
            with(&|spec| drop(spec.blocks.pop())),
            "model: the last block must be of kind softmax_linear"
        );
        assert_eq!(
            with(&|spec| spec.blocks.insert(0, Block::SoftmaxLinear { name: "early".into() })),
            "model, block `early`: softmax_linear must be the last block"
        );
        assert_eq!(
            with(&|spec| spec.blocks[4] = Block::SpatialDropout { name: "d".into(), keep: 0.0 }),
            "model, block `d`: keep = 0 is not above 0 and at most 1"
        );
        assert_eq!(
            with(&|spec| spec.blocks[3] = spec.blocks[1].clone()),
            "model, block `pool1`: two blocks have this name"
        );
        assert!(ModelSpec::default().network(1).is_err());
    }
}
