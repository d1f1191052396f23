//! A device with a clock around every primitive.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::device::{Buffer, Device, DeviceError, DropoutCoordinates, Op, Request, Span};

/// What one primitive costs in a training step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PrimitiveTime {
    /// Its name and sizes.
    pub primitive: String,
    /// Calls in a step.
    pub calls: u32,
    /// Milliseconds of a step: those of the fastest call, which nothing else on the machine has
    /// disturbed, times the calls.
    pub ms: f64,
    /// Billions of multiplications and additions a second, for matrix products.
    pub gflops: Option<f64>,
}

/// What is known of the calls of one primitive, by its name and sizes.
pub(super) type Times = Arc<Mutex<BTreeMap<String, Calls>>>;

pub(super) struct Calls {
    count: u32,
    fastest: Duration,
    /// Floating-point operations of one call.
    flops: u64,
}

/// Times everything that `device` does.
pub(super) struct Timed<D> {
    device: D,
    times: Times,
}

/// The primitives of `steps` steps, the longest first.
pub(super) fn summary(times: &Times, steps: u32) -> Vec<PrimitiveTime> {
    let times = times.lock().expect("no primitive panicked");
    let one = |(name, calls): (&String, &Calls)| {
        let (count, seconds) = (calls.count / steps, calls.fastest.as_secs_f64());
        PrimitiveTime {
            primitive: name.clone(),
            calls: count,
            ms: seconds * 1e3 * f64::from(count),
            gflops: (calls.flops > 0).then(|| calls.flops as f64 / seconds / 1e9),
        }
    };
    let mut all: Vec<PrimitiveTime> = times.iter().map(one).collect();
    all.sort_by(|a, b| b.ms.total_cmp(&a.ms));
    all
}

impl<D: Device> Timed<D> {
    pub(super) fn new(device: D, times: Times) -> Self {
        Self { device, times }
    }

    fn time<R>(&mut self, name: String, flops: u64, work: impl FnOnce(&mut D) -> R) -> R {
        let began = Instant::now();
        let result = work(&mut self.device);
        let elapsed = began.elapsed();
        let mut times = self.times.lock().expect("no primitive panicked");
        let new = Calls { count: 0, fastest: elapsed, flops };
        let calls = times.entry(name).or_insert(new);
        calls.count += 1;
        calls.fastest = calls.fastest.min(elapsed);
        result
    }
}

impl<D: Device> Device for Timed<D> {
    type Elem = D::Elem;

    fn describe(&self) -> String {
        self.device.describe()
    }

    fn alloc(&mut self, requests: &[Request]) -> Vec<Buffer> {
        self.device.alloc(requests)
    }

    fn upload(&mut self, target: Span, values: &[D::Elem]) {
        self.time("upload".into(), 0, |device| device.upload(target, values));
    }

    fn download(&mut self, source: Span, values: &mut [D::Elem]) -> Result<(), DeviceError> {
        self.time("download".into(), 0, |device| device.download(source, values))
    }

    fn finish(&mut self) -> Result<(), DeviceError> {
        self.device.finish()
    }

    fn set_dropout(&mut self, coordinates: DropoutCoordinates) {
        self.device.set_dropout(coordinates);
    }

    fn run(&mut self, op: Op) {
        self.time(op.to_string(), op.flops(), |device| {
            device.run(op);
            // An error is for the next download to report.
            let _ = device.finish();
        });
    }
}
