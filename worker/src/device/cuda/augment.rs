//! From photos to the images of a batch: crop, resize, mirror, colours, standardisation.

use super::launch::{Arg, Place, Traffic, int, numbers};
use super::lower::Lowering;
use crate::device::Tensor;
use crate::photo::{Colours, Photo};

/// Bits of [`Record::flags`].
const MIRRORED: u32 = 1;
const COLOURED: u32 = 2;

/// `struct Photo` of the kernels: what comes first in an upload, for each photo.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Record {
    /// Where its square begins, in bytes from the first record.
    offset: u64,
    side: u32,
    flags: u32,
    brightness: f32,
    contrast: f32,
}

/// Bytes of an upload of `photos`.
pub(super) fn upload_bytes(photos: &[Photo]) -> usize {
    let squares = photos.iter().map(|photo| square_bytes(photo.square.side)).sum::<usize>();
    size_of::<Record>() * photos.len() + squares
}

fn square_bytes(side: u32) -> usize {
    3 * (side as usize).pow(2)
}

/// The same as [`apply`] to squares of `side` rows, wherever they are.
pub(super) fn plan(to: &mut Lowering, side: u32, output: Tensor) {
    let bytes = output.n * (size_of::<Record>() + square_bytes(side));
    apply(to, Place::Device { address: 0 }, bytes, output);
}

/// Writes the upload: the records, then the squares.
pub(super) fn write_upload(photos: &[Photo], upload: &mut [u8]) {
    let (records, mut squares) = upload.split_at_mut(size_of::<Record>() * photos.len());
    let mut offset = records.len();
    for (photo, record) in photos.iter().zip(records.chunks_exact_mut(size_of::<Record>())) {
        let colours = photo.colours.unwrap_or(Colours { brightness: 0.0, contrast: 1.0 });
        let flag = |is_set: bool, flag| if is_set { flag } else { 0 };
        record.copy_from_slice(bytemuck::bytes_of(&Record {
            offset: offset as u64,
            side: photo.square.side,
            flags: flag(photo.mirror, MIRRORED) | flag(photo.colours.is_some(), COLOURED),
            brightness: colours.brightness,
            contrast: colours.contrast,
        }));
        for row in photo.rows() {
            let (to, rest) = std::mem::take(&mut squares).split_at_mut(row.len());
            to.copy_from_slice(row);
            squares = rest;
        }
        offset += square_bytes(photo.square.side);
    }
    assert!(squares.is_empty(), "room for the squares and no more");
}

/// Makes `output` (n, size, size, 3) of an upload of n photos.
pub(super) fn apply(to: &mut Lowering, photos: Place, bytes: usize, output: Tensor) {
    let size = output.shape.w;
    let pixels = output.rows();
    assert_eq!((output.shape.c, output.ld), (3, 3), "images lie together");
    let resized_bytes = 4 * numbers(output);
    let resized = to.scratch(resized_bytes);
    let args = vec![photos.into(), resized.into(), int(size)];
    let traffic = Traffic { read: bytes, written: resized_bytes, ..Traffic::default() };
    to.for_each("augment_resize", pixels, traffic, args);
    let args: Vec<Arg> = vec![photos.into(), resized.into(), output.into(), int(size)];
    let traffic = Traffic { read: resized_bytes, written: resized_bytes, ..Traffic::default() };
    to.blocks("augment_colours", output.n, traffic.writes(output), args);
}
