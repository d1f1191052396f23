//! A device with a clock around every primitive.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::device::{
    BatchNorm, Buffer, Device, DeviceError, DropoutCoordinates, Epilogue, Gemm, Mask, Span, Tensor,
    Update, Window,
};

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
    flops: f64,
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
            gflops: (calls.flops > 0.0).then(|| calls.flops / seconds / 1e9),
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

    fn time<R>(&mut self, name: String, flops: f64, work: impl FnOnce(&mut D) -> R) -> R {
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

    /// A convolution from `input` to `output`, in one direction.
    fn convolve(
        &mut self,
        direction: &str,
        window: Window,
        (input, output): (Tensor, Tensor),
        work: impl FnOnce(&mut D),
    ) {
        let k = window.kernel_size;
        let name = format!("conv2d_{direction} {k}x{k} {} -> {}", input.shape, output.shape);
        let flops = 2 * output.rows() * output.shape.c * k * k * input.shape.c;
        self.time(name, flops as f64, work);
    }
}

impl<D: Device> Device for Timed<D> {
    type Elem = D::Elem;

    fn describe(&self) -> String {
        self.device.describe()
    }

    fn alloc(&mut self, len: usize) -> Buffer {
        self.device.alloc(len)
    }

    fn upload(&mut self, target: Span, values: &[D::Elem]) {
        self.time("upload".into(), 0.0, |device| device.upload(target, values));
    }

    fn download(&mut self, source: Span, values: &mut [D::Elem]) -> Result<(), DeviceError> {
        self.time("download".into(), 0.0, |device| device.download(source, values))
    }

    fn set_dropout(&mut self, coordinates: DropoutCoordinates) {
        self.device.set_dropout(coordinates);
    }

    fn conv2d_forward(
        &mut self,
        window: Window,
        input: Tensor,
        weight: Span,
        epilogue: Epilogue,
        output: Tensor,
    ) {
        self.convolve("forward", window, (input, output), |device| {
            device.conv2d_forward(window, input, weight, epilogue, output);
        });
    }

    fn conv2d_grad_input(
        &mut self,
        window: Window,
        grad_output: Tensor,
        weight: Span,
        update: Update,
        grad_input: Tensor,
    ) {
        self.convolve("grad_input", window, (grad_input, grad_output), |device| {
            device.conv2d_grad_input(window, grad_output, weight, update, grad_input);
        });
    }

    fn conv2d_grad_weight(
        &mut self,
        window: Window,
        input: Tensor,
        grad_output: Tensor,
        grad_weight: Span,
    ) {
        self.convolve("grad_weight", window, (input, grad_output), |device| {
            device.conv2d_grad_weight(window, input, grad_output, grad_weight);
        });
    }

    fn moments(&mut self, input: Tensor, mean: Span, var: Span) {
        let name = format!("moments {}", input.shape);
        self.time(name, 0.0, |device| device.moments(input, mean, var));
    }

    fn batch_norm_relu(&mut self, bn: BatchNorm, input: Tensor, output: Tensor) {
        let name = format!("batch_norm_relu {}", input.shape);
        self.time(name, 0.0, |device| device.batch_norm_relu(bn, input, output));
    }

    fn batch_norm_relu_backward(
        &mut self,
        bn: BatchNorm,
        input: Tensor,
        grad: Tensor,
        grad_weight: Span,
        grad_bias: Span,
    ) {
        self.time(format!("batch_norm_relu_backward {}", input.shape), 0.0, |device| {
            device.batch_norm_relu_backward(bn, input, grad, grad_weight, grad_bias);
        });
    }

    fn max_pool_forward(
        &mut self,
        window: Window,
        input: Tensor,
        output: Tensor,
        places: Option<Tensor>,
    ) {
        self.time(format!("max_pool_forward {} -> {}", input.shape, output.shape), 0.0, |device| {
            device.max_pool_forward(window, input, output, places);
        });
    }

    fn max_pool_backward(
        &mut self,
        window: Window,
        places: Tensor,
        grad_output: Tensor,
        update: Update,
        grad_input: Tensor,
    ) {
        let (input, output) = (grad_input.shape, grad_output.shape);
        self.time(format!("max_pool_backward {input} -> {output}"), 0.0, |device| {
            device.max_pool_backward(window, places, grad_output, update, grad_input);
        });
    }

    fn dropout(&mut self, mask: Mask, tensor: Tensor) {
        let name = format!("dropout {}", tensor.shape);
        self.time(name, 0.0, |device| device.dropout(mask, tensor));
    }

    fn relu_backward(&mut self, output: Tensor, grad: Tensor) {
        let name = format!("relu_backward {}", output.shape);
        self.time(name, 0.0, |device| device.relu_backward(output, grad));
    }

    fn add_bias(&mut self, bias: Span, tensor: Tensor) {
        let name = format!("add_bias {}", tensor.shape);
        self.time(name, 0.0, |device| device.add_bias(bias, tensor));
    }

    fn bias_backward(&mut self, grad_output: Tensor, grad_bias: Span) {
        let name = format!("bias_backward {}", grad_output.shape);
        self.time(name, 0.0, |device| device.bias_backward(grad_output, grad_bias));
    }

    fn gemm(&mut self, gemm: Gemm, a: Span, b: Span, c: Span) {
        let Gemm { m, n, k, .. } = gemm;
        let name = format!("gemm {m}x{n}x{k}");
        self.time(name, (2 * m * n * k) as f64, |device| device.gemm(gemm, a, b, c));
    }

    fn weight_decay(&mut self, decay: f32, weight: Span, grad_weight: Span, penalty: Span) {
        self.time("weight_decay".into(), 0.0, |device| {
            device.weight_decay(decay, weight, grad_weight, penalty);
        });
    }

    fn softmax_cross_entropy(
        &mut self,
        logits: Tensor,
        labels: Span,
        grad_logits: Tensor,
        loss: Span,
        top1: Span,
    ) {
        self.time("softmax_cross_entropy".into(), 0.0, |device| {
            device.softmax_cross_entropy(logits, labels, grad_logits, loss, top1);
        });
    }
}
