//! What computes alike: the same bits from a fixed small job, from an image file to a gradient.

use hw2_common::config::{Images, Precision};
use hw2_common::ids::{GlobalStep, ReplicaId};
use hw2_common::layout::ParamLayout;
use hw2_common::model::{Block, ConvSpec, ModelSpec, Shape};
use sha2::{Digest, Sha256};

use crate::data::{self, DecodeError};
use crate::device::{Choice, DeviceError, DropoutCoordinates};
use crate::nn::Engine;

const BATCH: usize = 4;
const IMAGE_SIZE: usize = 20;
const CLASSES: usize = 10;
const SEED: u64 = 1;
/// Decoding, cropping and resizing may take other instructions on another machine, too.
const PHOTO: &[u8] = include_bytes!("../golden/progressive.jpg");

/// Why there is no kind to tell.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KindError {
    /// The device is not there, or fails.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// This machine cannot decode a good image.
    #[error("the image that this program brings along: {0}")]
    Decode(#[from] DecodeError),
}

/// The digest, in hex, of training and evaluation images of a photo, and of gradient, statistics
/// and logits that a fixed batch gives through every kind of layer, and the photos where the device
/// finishes them, and of what it says of itself.
///
/// # Errors
/// The device is not there, or fails.
pub(crate) fn numeric_kind(choice: &Choice, precision: Precision) -> Result<String, KindError> {
    let mut hash = Sha256::new();
    let mut add = |values: &[f32]| values.iter().for_each(|value| hash.update(value.to_le_bytes()));
    let recipe = Images { rotation_degrees: 10.0, ..Images::default() };
    let mut photos = Vec::new();
    for sample in 0..BATCH as u32 {
        let photo = data::training_photo(PHOTO, &recipe, SEED, sample)?;
        let mut image = vec![0.0; IMAGE_SIZE * IMAGE_SIZE * 3];
        photo.finish(IMAGE_SIZE, &mut image);
        add(&image);
        photos.push(photo);
    }
    add(&data::eval_image(PHOTO, &recipe, IMAGE_SIZE)?);

    let network = model().network(CLASSES).expect("a valid model");
    let layout = ParamLayout::new(&network);
    let mut engine = Engine::new(choice.open(precision)?, &network, BATCH, precision)?;
    engine.load_params(&layout.initial_params(SEED));
    let images = synthetic(network.input);
    let labels: Vec<u32> = (0..BATCH as u32).collect();
    let coordinates = DropoutCoordinates { seed: SEED, step: GlobalStep(2), replica: ReplicaId(3) };
    let mut statistics = vec![0.0; layout.buffers.len()];
    engine.train_step(
        &images,
        &labels,
        Some(coordinates),
        &mut statistics,
        &mut |_, gradient| {
            add(gradient);
        },
    )?;
    add(&statistics);
    engine.load_buffers(&statistics);
    add(&engine.evaluate(&images)?);
    if engine.finishes_photos() {
        engine.stage_photos(&photos, &labels);
        engine.begin(None);
        while let Some(made) = engine.made()? {
            add(made.values());
        }
    }
    hash.update(engine.kind());
    Ok(hw2_common::hex(&hash.finalize()[..8]))
}

/// A batch that needs no arithmetic worth the name.
fn synthetic(input: Shape) -> Vec<f32> {
    (0..BATCH * input.len()).map(|i| (i * 37 % 255) as f32 / 64.0 - 2.0).collect()
}

/// Wide enough that every code path of a device is taken, small enough to cost nothing.
fn model() -> ModelSpec {
    let conv = |channels, stride| ConvSpec { channels, kernel_size: 3, stride };
    let blocks = vec![
        Block::ConvStack { name: "conv".into(), layers: vec![conv(24, 1), conv(64, 2)] },
        Block::MaxPool { name: "pool".into(), kernel_size: 3, stride: 2 },
        Block::InceptionV2 { name: "mix".into(), branches: [16, 24, 24, 16], bottleneck: 40 },
        Block::SpatialDropout { name: "drop".into(), keep: 0.75 },
        Block::InceptionV1 { name: "mix2".into(), branches: [16, 8, 8, 16], bottleneck: 24 },
        Block::Dense { name: "dense".into(), units: 64, keep: 0.5, weight_decay: 1e-3 },
        Block::SoftmaxLinear { name: "softmax".into() },
    ];
    ModelSpec { image_size: IMAGE_SIZE, blocks }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Kind;

    #[test]
    fn the_numeric_kind_depends_on_the_device_and_not_on_its_threads() {
        let kind = |kind, threads| {
            let choice = Choice { kind, threads, cuda_lib_dir: None };
            numeric_kind(&choice, Precision::Fp32).unwrap()
        };
        let one = kind(Kind::Cpu, 1);
        for threads in [2, 3, 7] {
            assert_eq!(kind(Kind::Cpu, threads), one, "{threads} threads");
        }
        assert_ne!(kind(Kind::PlainF32, 1), one);
    }
}
