//! A device with somebody who looks on at every operation.

use crate::device::{Buffer, Device, DeviceError, DropoutCoordinates, Op, Request, Span};

/// Who looks on.
pub(super) trait Watch<D>: Send {
    /// The device has made buffers of `_requests`.
    fn allocated(&mut self, _requests: &[Request]) {}

    /// The device draws its dropout masks from `_coordinates`.
    fn dropout_set(&mut self, _coordinates: DropoutCoordinates) {}

    /// Has `device` run `op`, and looks at what it reads and writes.
    ///
    /// # Errors
    /// Those of the device's downloads.
    fn run(&mut self, device: &mut D, op: Op) -> Result<(), DeviceError>;
}

/// A device that computes what `device` does while `watch` looks on.
pub(super) struct Watched<D, W> {
    device: D,
    watch: W,
    /// For the next download to report.
    failure: Option<DeviceError>,
}

impl<D, W> Watched<D, W> {
    pub(super) fn new(device: D, watch: W) -> Self {
        Self { device, watch, failure: None }
    }
}

impl<D: Device, W: Watch<D>> Device for Watched<D, W> {
    type Elem = D::Elem;

    fn describe(&self) -> String {
        self.device.describe()
    }

    fn alloc(&mut self, requests: &[Request]) -> Vec<Buffer> {
        self.watch.allocated(requests);
        self.device.alloc(requests)
    }

    fn upload(&mut self, target: Span, values: &[D::Elem]) {
        self.device.upload(target, values);
    }

    fn download(&mut self, source: Span, values: &mut [D::Elem]) -> Result<(), DeviceError> {
        match self.failure.take() {
            Some(failure) => Err(failure),
            None => self.device.download(source, values),
        }
    }

    fn set_dropout(&mut self, coordinates: DropoutCoordinates) {
        self.device.set_dropout(coordinates);
        self.watch.dropout_set(coordinates);
    }

    fn run(&mut self, op: Op) {
        if self.failure.is_none() {
            self.failure = self.watch.run(&mut self.device, op).err();
        }
    }
}
