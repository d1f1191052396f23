//! Gradients against finite differences of the loss, in f64, for every kind of layer.

use hw2_common::config::Precision;
use hw2_common::ids::{GlobalStep, ReplicaId};
use hw2_common::layout::ParamLayout;
use hw2_common::model::{Block, ConvSpec, ModelSpec};

use super::Model;
use crate::device::plain::Plain;
use crate::device::tests::gpu;
use crate::device::{DropoutCoordinates, Float, Pipeline, Serial};
use crate::verify::fill;

const BATCH: usize = 3;
const CLASSES: usize = 4;
const IMAGE_SIZE: usize = 9;
/// Step of a difference: small enough that no ReLU and no arg-max flips on the way.
const STEP: f64 = 1e-6;
/// Elements looked at in each tensor.
const PROBES: usize = 5;

/// A model in f64 with what it computes on.
struct Setup {
    model: Model<Serial<Plain<f64>>>,
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
        let model =
            Model::new(Serial::new(Plain::new()), &network, BATCH, Precision::Fp32).unwrap();
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

/// Loss and gradient of one step of the ten-layer network on small images.
fn step<D: Pipeline>(device: D, precision: Precision) -> (f64, Vec<f64>) {
    let spec = ModelSpec { image_size: 40, ..ModelSpec::default() };
    let network = spec.network(10).unwrap();
    let layout = ParamLayout::new(&network);
    let number = |value: f32| D::Elem::from_f64(value.into());
    let params: Vec<_> = layout.initial_params(5).into_iter().map(number).collect();
    let images: Vec<_> =
        fill(1, 8 * network.input.len(), 2.0, 0.0).into_iter().map(number).collect();
    let mut model = Model::new(device, &network, 8, precision).unwrap();
    let coordinates = DropoutCoordinates { seed: 3, step: GlobalStep(4), replica: ReplicaId(1) };
    let mut statistics = vec![D::Elem::ZERO; layout.buffers.len()];
    let mut result = (0.0, Vec::new());
    // The third time a GPU repeats what it was told.
    for _ in 0..3 {
        model.load_params(&params);
        let mut gradient = vec![f64::NAN; params.len()];
        let outcome = model.train_step(
            &images,
            &[0, 1, 2, 3, 4, 5, 6, 7],
            Some(coordinates),
            &mut statistics,
            &mut |range, values| {
                for (to, value) in gradient[range].iter_mut().zip(values) {
                    *to = value.to_f64();
                }
            },
        );
        let again = (outcome.unwrap().loss, gradient);
        assert!(result.1.is_empty() || result == again, "a step that is repeated");
        result = again;
    }
    result
}

#[test]
fn reduced_precision_on_a_gpu_is_near_to_what_it_should_be() {
    let exact = step(Serial::new(Plain::<f64>::new()), Precision::Fp32);
    let rounded = step(Serial::new(Plain::<f64>::new()), Precision::Bf16);
    let apart = |a: &(f64, Vec<f64>), b: &(f64, Vec<f64>)| {
        let norm =
            |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
        let difference = norm(&mut a.1.iter().zip(&b.1).map(|(a, b)| a - b));
        ((a.0 - b.0).abs(), difference / norm(&mut b.1.iter().copied()))
    };
    let of_tf32 = apart(&step(gpu(Precision::Tf32), Precision::Tf32), &exact);
    assert!(of_tf32.1 > 1e-5, "tf32 is not fp32");
    assert!(of_tf32.0 < 0.02 && of_tf32.1 < 0.1, "tf32: {of_tf32:?}");
    // ReLUs and arg-maxes fall the other way here and there, in other places each time.
    let of_rounding = apart(&rounded, &exact);
    let of_gpu = apart(&step(gpu(Precision::Bf16), Precision::Bf16), &exact);
    assert!(of_rounding.0 < 0.05 && of_rounding.1 < 0.4, "rounding: {of_rounding:?}");
    assert!(of_gpu.0 < 0.05 && of_gpu.1 < 1.5 * of_rounding.1, "{of_gpu:?} of {of_rounding:?}");
}
