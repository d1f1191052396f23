//! Where each tensor lies in its flat vector.

use std::ops::Range;

use sha2::{Digest, Sha256};

use crate::model::{Conv, Epilogue, LayerKind, Network};
use crate::rng;

/// A bucket is closed once it holds this many values, so that none is too small to be worth a
/// frame.
const BUCKET_VALUES_MIN: usize = 64 * 1024;

/// What a tensor is, which decides its initial value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// (kh, kw, c_in, c_out); He normal.
    ConvWeight,
    /// (in, out); He normal.
    DenseWeight,
    /// (c); 0.
    Bias,
    /// Scale of a BN (c); 1.
    BnWeight,
    /// Shift of a BN (c); 0.
    BnBias,
    /// Running mean of a BN (c); 0.
    RunningMean,
    /// Running variance of a BN (c); 1.
    RunningVar,
}

impl Kind {
    fn label(self) -> &'static str {
        match self {
            Self::ConvWeight => "conv_weight",
            Self::DenseWeight => "dense_weight",
            Self::Bias => "bias",
            Self::BnWeight => "bn_weight",
            Self::BnBias => "bn_bias",
            Self::RunningMean => "running_mean",
            Self::RunningVar => "running_var",
        }
    }
}

/// One named tensor of a flat vector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// As in the golden file: `inception2.branch1.conv1x1.weight`.
    pub name: String,
    /// Row-major.
    pub shape: Vec<usize>,
    /// Its values in the flat vector.
    pub range: Range<usize>,
    /// What it is.
    pub kind: Kind,
    /// Index of its layer in the network.
    pub layer: usize,
}

/// The tensors of one flat vector, contiguous, in the order of the network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tensors {
    entries: Vec<Entry>,
}

/// Describes the two flat vectors of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParamLayout {
    /// What Adam updates: weights, gradient, moments and EMA share it.
    pub params: Tensors,
    /// BN statistics: the running ones, and those of one batch.
    pub buffers: Tensors,
}

impl Tensors {
    /// All entries in order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Values of the whole vector.
    pub fn len(&self) -> usize {
        self.entries.last().map_or(0, |entry| entry.range.end)
    }

    /// Whether there are no tensors.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entry called `name`.
    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.name == name)
    }

    fn add(&mut self, layer: usize, name: String, shape: &[usize], kind: Kind) {
        let start = self.len();
        let range = start..start + shape.iter().product::<usize>();
        self.entries.push(Entry { name, shape: shape.to_vec(), range, kind, layer });
    }
}

impl ParamLayout {
    /// The layout of `network`.
    pub fn new(network: &Network) -> Self {
        let mut layout = Self { params: Tensors::default(), buffers: Tensors::default() };
        for (index, layer) in network.layers.iter().enumerate() {
            match &layer.kind {
                LayerKind::ConvStack(convs) => {
                    convs.iter().for_each(|conv| layout.conv(index, conv))
                }
                LayerKind::Inception(branches) => {
                    let convs = branches.iter().flat_map(|branch| &branch.convs);
                    convs.for_each(|conv| layout.conv(index, conv));
                    layout.bn(index, &layer.name, layer.output.c);
                }
                LayerKind::Dense { .. } => {
                    let shape = [layer.input.len(), layer.output.c];
                    let name = format!("{}.weight", layer.name);
                    layout.params.add(index, name, &shape, Kind::DenseWeight);
                    layout.bn(index, &layer.name, layer.output.c);
                }
                LayerKind::SoftmaxLinear => {
                    let shape = [layer.input.len(), layer.output.c];
                    let name = |part| format!("{}.{part}", layer.name);
                    layout.params.add(index, name("weight"), &shape, Kind::DenseWeight);
                    layout.params.add(index, name("bias"), &[layer.output.c], Kind::Bias);
                }
                LayerKind::MaxPool { .. } | LayerKind::SpatialDropout { .. } => {}
            }
        }
        layout
    }

    fn conv(&mut self, layer: usize, conv: &Conv) {
        let shape = [conv.kernel_size, conv.kernel_size, conv.input.c, conv.output.c];
        self.params.add(layer, format!("{}.weight", conv.name), &shape, Kind::ConvWeight);
        match conv.epilogue {
            Epilogue::BnRelu => self.bn(layer, &conv.name, conv.output.c),
            Epilogue::Bias | Epilogue::BiasRelu => {
                self.params.add(layer, format!("{}.bias", conv.name), &shape[3..], Kind::Bias);
            }
            Epilogue::None => {}
        }
    }

    fn bn(&mut self, layer: usize, name: &str, channels: usize) {
        let tensor = |part| format!("{name}.bn.{part}");
        self.params.add(layer, tensor("weight"), &[channels], Kind::BnWeight);
        self.params.add(layer, tensor("bias"), &[channels], Kind::BnBias);
        self.buffers.add(layer, tensor("running_mean"), &[channels], Kind::RunningMean);
        self.buffers.add(layer, tensor("running_var"), &[channels], Kind::RunningVar);
    }

    /// SHA-256, in hex, over name, shape, range and kind of every tensor.
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        for (vector, tensors) in [("params", &self.params), ("buffers", &self.buffers)] {
            for Entry { name, shape, range, kind, .. } in tensors.entries() {
                let kind = kind.label();
                hash.update(format!("{vector} {name} {shape:?} {range:?} {kind}\n"));
            }
        }
        crate::hex(&hash.finalize())
    }

    /// The parameter vector cut into buckets, in the order in which backward finishes them: whole
    /// layers, from the last to the first.
    pub fn buckets(&self) -> Vec<Range<usize>> {
        let mut buckets = Vec::new();
        let mut end = self.params.len();
        let entries = self.params.entries();
        for (index, entry) in entries.iter().enumerate().rev() {
            let layer_starts = index == 0 || entries[index - 1].layer != entry.layer;
            if index == 0 || (layer_starts && end - entry.range.start >= BUCKET_VALUES_MIN) {
                buckets.push(entry.range.start..end);
                end = entry.range.start;
            }
        }
        buckets
    }

    /// The layers whose parameters begin in `range`, for people: `dense1, softmax_linear`.
    pub fn layers(&self, range: &Range<usize>) -> String {
        let within =
            self.params.entries().iter().filter(|entry| range.contains(&entry.range.start));
        let layer = |entry: &Entry| entry.name.split('.').next().unwrap_or_default().to_owned();
        let mut names: Vec<String> = within.map(layer).collect();
        names.dedup();
        names.join(", ")
    }

    /// Initial parameters: He normal (truncated at two standard deviations, fan-in), biases 0, BN 1
    /// and 0. He et al., "Delving deep into rectifiers" (2015), with Keras' correction for the cut.
    pub fn initial_params(&self, seed: u64) -> Vec<f32> {
        /// Standard deviation of a standard normal cut at two.
        const CUT: f64 = 0.879_625_661_034_239_8;
        let mut values = vec![0.0; self.params.len()];
        for (number, entry) in self.params.entries().iter().enumerate() {
            let out = &mut values[entry.range.clone()];
            match entry.kind {
                Kind::ConvWeight | Kind::DenseWeight => {
                    let fan_in: usize = entry.shape[..entry.shape.len() - 1].iter().product();
                    let scale = (2.0 / fan_in as f64).sqrt() / CUT;
                    for (element, value) in out.iter_mut().enumerate() {
                        let z = rng::truncated_normal(seed, number as u32, element as u32);
                        *value = (z * scale) as f32;
                    }
                }
                Kind::BnWeight => out.fill(1.0),
                _ => {}
            }
        }
        values
    }

    /// Initial running statistics: mean 0, variance 1.
    pub fn initial_buffers(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.buffers.len()];
        for entry in self.buffers.entries() {
            if entry.kind == Kind::RunningVar {
                values[entry.range.clone()].fill(1.0);
            }
        }
        values
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Block, ModelSpec};

    fn layout() -> ParamLayout {
        ParamLayout::new(&ModelSpec::default().network(65).unwrap())
    }

    #[test]
    fn the_default_has_2_958_689_parameters() {
        let layout = layout();
        assert_eq!(layout.params.len(), 2_958_689);
        assert_eq!(layout.buffers.len(), 2 * (64 + 128 + 320 + 192 + 256));
        let dense1 = layout.params.get("dense1.weight").unwrap();
        assert_eq!(dense1.shape, [9408, 256]);
    }

    #[test]
    fn buckets_cover_the_vector_once_from_its_end() {
        let layout = layout();
        let buckets = layout.buckets();
        let dense1 = layout.params.get("dense1.weight").unwrap();
        assert_eq!(buckets[0], dense1.range.start..layout.params.len());
        assert_eq!(buckets.len(), 4);
        let mut end = layout.params.len();
        for bucket in buckets {
            assert_eq!(bucket.end, end);
            end = bucket.start;
        }
        assert_eq!(end, 0);
    }

    #[test]
    fn the_fingerprint_tells_layouts_apart() {
        let mut spec = ModelSpec::default();
        spec.blocks[2] = Block::InceptionV1 {
            name: "inception2".into(),
            branches: [64, 96, 96, 64],
            bottleneck: 64,
        };
        let v1 = ParamLayout::new(&spec.network(65).unwrap());
        assert!(v1.params.get("inception2.branch3.conv5x5.weight").is_some());
        assert_ne!(v1.fingerprint(), layout().fingerprint());
        assert_eq!(layout().fingerprint(), layout().fingerprint());
    }

    #[test]
    fn initial_values_follow_kind_seed_and_fan_in() {
        let layout = layout();
        let params = layout.initial_params(1);
        let entry = layout.params.get("conv_stack1.conv2.weight").unwrap();
        let values = &params[entry.range.clone()];
        let var = values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / values.len() as f64;
        assert!((var / (2.0 / 576.0) - 1.0).abs() < 0.02, "variance {var}");
        let bn = layout.params.get("inception2.bn.weight").unwrap();
        assert!(params[bn.range.clone()].iter().all(|v| *v == 1.0));
        assert_ne!(params, layout.initial_params(2));
        assert_eq!(layout.initial_buffers().iter().filter(|v| **v == 1.0).count(), 960);
    }
}
