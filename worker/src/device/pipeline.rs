//! A training step as a device sees it: operations in pieces, each with a result to hand over,
//! while the next batch is already on its way.

use std::collections::VecDeque;

use super::{Buffer, Device, DeviceError, DropoutCoordinates, Float, Op, Request, Span, Tensor};
use crate::photo::Photo;

/// Some of the operations of a training step, after which something is final.
#[derive(Clone, Debug, PartialEq)]
pub struct Segment {
    /// In order.
    pub ops: Vec<Op>,
    /// What nothing writes to any more in this step.
    pub made: Span,
}

/// A device that can work ahead of its caller.
pub trait Pipeline: Device {
    /// Keeps `values` for `target`, which gets them at [`Self::take_staged`].
    fn stage(&mut self, target: Span, values: &[Self::Elem]);

    /// The same with the images (n, size, size, 3) of `photos`, finished as [`Photo::finish`] does.
    fn stage_photos(&mut self, target: Tensor, photos: &[Photo]) {
        let size = target.shape.w;
        let mut image = vec![0.0; target.shape.len()];
        let mut values = Vec::with_capacity(photos.len() * image.len());
        for photo in photos {
            photo.finish(size, &mut image);
            values.extend(image.iter().map(|value| Self::Elem::from_f64(f64::from(*value))));
        }
        self.stage(target.first(photos.len()).span(), &values);
    }

    /// Whether photos should be handed to it unfinished.
    fn finishes_photos(&self) -> bool {
        false
    }

    /// What was staged takes its place when everything asked before is done.
    fn take_staged(&mut self);

    /// Begins `segments`, in order, when everything asked before is done.
    fn begin(&mut self, segments: &[Segment]);

    /// What the next of the begun segments has made, as soon as it is there.
    ///
    /// # Errors
    /// Whatever went wrong on the device since the last download.
    fn next(&mut self) -> Result<&[Self::Elem], DeviceError>;
}

/// A device that computes when it is asked to: nothing ahead of its caller.
pub struct Serial<D: Device> {
    device: D,
    staged: Vec<(Span, Vec<D::Elem>)>,
    segments: VecDeque<Segment>,
    made: Vec<D::Elem>,
}

impl<D: Device> Serial<D> {
    /// Computes on `device`.
    pub fn new(device: D) -> Self {
        Self { device, staged: Vec::new(), segments: VecDeque::new(), made: Vec::new() }
    }
}

impl<D: Device> Pipeline for Serial<D> {
    fn stage(&mut self, target: Span, values: &[D::Elem]) {
        self.staged.push((target, values.to_vec()));
    }

    fn take_staged(&mut self) {
        for (target, values) in self.staged.drain(..) {
            self.device.upload(target, &values);
        }
    }

    fn begin(&mut self, segments: &[Segment]) {
        self.segments.extend(segments.iter().cloned());
    }

    fn next(&mut self) -> Result<&[D::Elem], DeviceError> {
        let Segment { ops, made } = self.segments.pop_front().expect("a segment was begun");
        self.device.run_all(&ops);
        self.made.resize(made.len, D::Elem::ZERO);
        self.device.download(made, &mut self.made)?;
        Ok(&self.made)
    }
}

impl<D: Device> Device for Serial<D> {
    type Elem = D::Elem;

    fn describe(&self) -> String {
        self.device.describe()
    }

    fn kind(&self) -> String {
        self.device.kind()
    }

    fn alloc(&mut self, requests: &[Request]) -> Vec<Buffer> {
        self.device.alloc(requests)
    }

    fn make_room(&mut self, ops: &[Op]) {
        self.device.make_room(ops);
    }

    fn upload(&mut self, target: Span, values: &[D::Elem]) {
        self.device.upload(target, values);
    }

    fn download(&mut self, source: Span, values: &mut [D::Elem]) -> Result<(), DeviceError> {
        self.device.download(source, values)
    }

    fn finish(&mut self) -> Result<(), DeviceError> {
        self.device.finish()
    }

    fn set_dropout(&mut self, coordinates: DropoutCoordinates) {
        self.device.set_dropout(coordinates);
    }

    fn run(&mut self, op: Op) {
        self.device.run(op);
    }

    fn run_all(&mut self, ops: &[Op]) {
        self.device.run_all(ops);
    }
}

impl<P: Pipeline + ?Sized> Pipeline for Box<P> {
    fn stage(&mut self, target: Span, values: &[P::Elem]) {
        (**self).stage(target, values);
    }

    fn stage_photos(&mut self, target: Tensor, photos: &[Photo]) {
        (**self).stage_photos(target, photos);
    }

    fn finishes_photos(&self) -> bool {
        (**self).finishes_photos()
    }

    fn take_staged(&mut self) {
        (**self).take_staged();
    }

    fn begin(&mut self, segments: &[Segment]) {
        (**self).begin(segments);
    }

    fn next(&mut self) -> Result<&[P::Elem], DeviceError> {
        (**self).next()
    }
}
