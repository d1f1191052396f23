//! Gradients against finite differences of the loss, in f64, for every kind of layer.

use hw2_common::ids::{GlobalStep, ReplicaId};
use hw2_common::layout::ParamLayout;
use hw2_common::model::{Block, ConvSpec, ModelSpec};

use super::Model;
use crate::device::DropoutCoordinates;
use crate::device::plain::Plain;

const BATCH: usize = 3;
const CLASSES: usize = 4;
const IMAGE_SIZE: usize = 9;
/// Step of a difference: small enough that no ReLU and no arg-max flips on the way.
const STEP: f64 = 1e-6;
/// Elements looked at in each tensor.
const PROBES: usize = 5;

/// A model in f64 with what it computes on.
struct Setup {
    model: Model<Plain<f64>>,
    layout: ParamLayout,
    params: Vec<f64>,
    images: Vec<f64>,
    labels: Vec<u32>,
}

impl Setup {
    /// `blocks`, then a softmax_linear.
    fn new(mut blocks: Vec<Block>) -> Self {
        blocks.push(Block::SoftmaxLinear { name: "softmax".into() });
        let network = ModelSpec { image_size: IMAGE_SIZE, blocks }.network(CLASSES).unwrap();
        let layout = ParamLayout::new(&network);
        // Away from the initial zeros and ones, which would hide a mistake.
        let wobble = |i: usize| ((i * 7919) % 211) as f64 / 1000.0 - 0.1;
        let initial = layout.initial_params(5);
        let params = initial.iter().enumerate().map(|(i, v)| f64::from(*v) + wobble(i)).collect();
        let images = (0..BATCH * network.input.len()).map(|i| wobble(i * 31 + 7) * 10.0).collect();
        let model = Model::new(Plain::new(), &network, BATCH);
        Self { model, layout, params, images, labels: vec![2, 0, 3] }
    }

    /// Loss and gradient, with the same dropout masks at every call.
    fn step(&mut self) -> (f64, Vec<f64>) {
        let coordinates =
            DropoutCoordinates { seed: 3, step: GlobalStep(4), replica: ReplicaId(1) };
        self.model.load_params(&self.params);
        let mut statistics = vec![0.0; self.layout.buffers.len()];
        let mut gradient = vec![f64::NAN; self.params.len()];
        let outcome = self.model.train_step(
            &self.images,
            &self.labels,
            Some(coordinates),
            &mut statistics,
            &mut |range, values| gradient[range].copy_from_slice(values),
        );
        (outcome.unwrap().loss, gradient)
    }

    /// Compares some elements of every tensor's gradient with central differences.
    fn check(mut self) {
        let (_, gradient) = self.step();
        for entry in self.layout.params.entries().to_vec() {
            for probe in 0..PROBES {
                let element = entry.range.start + probe * 7919 % entry.range.len();
                let value = self.params[element];
                let mut loss_at = |at: f64| {
                    self.params[element] = at;
                    self.step().0
                };
                let difference = (loss_at(value + STEP) - loss_at(value - STEP)) / (2.0 * STEP);
                self.params[element] = value;
                let error = (difference - gradient[element]).abs();
                assert!(
                    error < 1e-6 * (1.0 + difference.abs()),
                    "{} element {element}: {} by backward, {difference} by differences",
                    entry.name,
                    gradient[element]
                );
            }
        }
    }
}

fn conv(channels: usize, kernel_size: usize, stride: usize) -> ConvSpec {
    ConvSpec { channels, kernel_size, stride }
}

fn stack(layers: Vec<ConvSpec>) -> Block {
    Block::ConvStack { name: "stack".into(), layers }
}

#[test]
fn softmax_linear() {
    Setup::new(Vec::new()).check();
}

#[test]
fn conv_stack() {
    Setup::new(vec![stack(vec![conv(5, 3, 1), conv(6, 3, 2), conv(4, 1, 1), conv(3, 5, 3)])])
        .check();
}

#[test]
fn max_pool() {
    let pool = Block::MaxPool { name: "pool".into(), kernel_size: 3, stride: 2 };
    Setup::new(vec![stack(vec![conv(5, 3, 1)]), pool]).check();
}

#[test]
fn inception_v1() {
    let (name, branches) = ("mix".into(), [3, 4, 5, 2]);
    let block = Block::InceptionV1 { name, branches, bottleneck: 3 };
    Setup::new(vec![stack(vec![conv(4, 3, 2)]), block]).check();
}

#[test]
fn inception_v2() {
    let (name, branches) = ("mix".into(), [3, 4, 5, 2]);
    let block = Block::InceptionV2 { name, branches, bottleneck: 3 };
    Setup::new(vec![stack(vec![conv(4, 3, 2)]), block]).check();
}

#[test]
fn spatial_dropout() {
    let block = Block::SpatialDropout { name: "drop".into(), keep: 0.5 };
    Setup::new(vec![stack(vec![conv(6, 3, 2)]), block]).check();
}

#[test]
fn dense_with_dropout_and_weight_decay() {
    let block = Block::Dense { name: "dense".into(), units: 8, keep: 0.5, weight_decay: 0.25 };
    Setup::new(vec![stack(vec![conv(4, 3, 3)]), block]).check();
}
