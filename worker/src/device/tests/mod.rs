//! Every fast primitive, with odd sizes and strides, against the plain loops in f64.

use std::path::Path;

use hw2_common::config::Precision;
use hw2_common::model::Shape;

use hw2_common::ids::{GlobalStep, ReplicaId};

use super::cpu::Cpu;
use super::cuda::Cuda;
use super::plain::Plain;
use super::{
    BatchNorm, Device, DropoutCoordinates, Epilogue, Float, Format, Gemm, Mask, Op, Pointwise,
    PointwiseGrad, Request, Span, Tensor, Update, Window,
};

mod ahead;
mod few_rows;
mod many_rows;
mod operands;
mod photos;

/// (n, h, w, c_in, c_out, kernel_size, stride).
const CONVOLUTIONS: [[usize; 7]; 10] = [
    [1, 1, 1, 1, 1, 1, 1],
    [2, 7, 5, 3, 9, 3, 1],
    [3, 9, 10, 5, 17, 3, 2],
    [5, 6, 6, 16, 33, 1, 1],
    [2, 4, 11, 7, 6, 5, 1],
    [1, 2, 2, 3, 4, 5, 3],
    [19, 5, 5, 4, 8, 3, 2],
    [4, 6, 5, 16, 33, 3, 1],
    [2, 9, 10, 8, 24, 3, 2],
    [3, 4, 11, 24, 8, 5, 3],
];

/// (n, h, w, c).
const ACTIVATIONS: [[usize; 4]; 6] =
    [[1, 1, 1, 1], [3, 5, 7, 9], [19, 4, 3, 33], [2, 13, 1, 64], [3, 17, 31, 70], [3, 17, 31, 72]];

/// (n, classes).
const BATCHES: [[usize; 2]; 4] = [[1, 1], [5, 10], [3, 65], [300, 33]];

/// (m, n, k).
const PRODUCTS: [[usize; 3]; 4] = [[1, 1, 1], [5, 7, 3], [33, 65, 129], [4, 300, 1000]];

/// Numbers between -1 and 1 that differ from tensor to tensor.
fn numbers<T: Float>(len: usize, tensor: usize) -> Vec<T> {
    let number = |i: usize| ((i * 7919 + tensor * 104_729) % 2003) as f64 / 1001.0 - 1.0;
    (0..len).map(|i| T::from_f64(f64::from(number(i) as f32))).collect()
}

fn span<D: Device>(device: &mut D, len: usize, tensor: usize) -> Span {
    span_of(device, Format::Full, len, tensor)
}

fn span_of<D: Device>(device: &mut D, format: Format, len: usize, tensor: usize) -> Span {
    let request = Request { format, ..Request::lasting(len) };
    let span = Span { buffer: device.alloc(&[request])[0], offset: 0, len };
    device.upload(span, &numbers(len, tensor));
    span
}

/// Where a slice of so many channels begins: of multiples of 8 such that 16 bytes can be moved at
/// once, but of every other one not in bfloat16 (the sanitizers would find who does).
fn first_channel(channels: usize) -> usize {
    if channels % 16 == 8 { 8 } else { 4 }
}

/// A tensor that is a slice of the channels of a wider one.
fn tensor<D: Device>(
    device: &mut D,
    format: Format,
    n: usize,
    shape: Shape,
    number: usize,
) -> Tensor {
    let wide = Shape { c: shape.c + 16, ..shape };
    let whole = Tensor::new(span_of(device, format, n * wide.len(), number).buffer, n, wide);
    whole.channels(first_channel(shape.c), shape.c)
}

/// Places of a pool, in the midst of a buffer of bytes.
fn places<D: Device>(device: &mut D, n: usize, shape: Shape) -> Tensor {
    let wide = Shape { c: shape.c + 16, ..shape };
    let len = n * wide.len();
    let request = Request { format: Format::Byte, ..Request::lasting(len) };
    let buffer = device.alloc(&[request])[0];
    let bytes: Vec<_> = (0..len).map(|i| D::Elem::from_f64((i % 256) as f64)).collect();
    device.upload(Span { buffer, offset: 0, len }, &bytes);
    Tensor::new(buffer, n, wide).channels(first_channel(shape.c), shape.c)
}

/// All numbers of the buffer of a tensor made by [`tensor`]: what lies beside it must not change.
fn read<D: Device>(device: &mut D, tensor: Tensor) -> Vec<f64> {
    let len = tensor.rows() * tensor.ld;
    read_span(device, Span { buffer: tensor.buffer, offset: 0, len })
}

fn read_span<D: Device>(device: &mut D, span: Span) -> Vec<f64> {
    let mut values = vec![D::Elem::ZERO; span.len];
    device.download(span, &mut values).unwrap();
    values.into_iter().map(Float::to_f64).collect()
}

fn convolution<D: Device>(device: &mut D, format: Format, sizes: [usize; 7]) -> Vec<Vec<f64>> {
    let [n, h, w, ci, co, kernel_size, stride] = sizes;
    let window = Window { kernel_size, stride };
    let shape = Shape { h, w, c: ci };
    let input = tensor(device, format, n, shape, 1);
    let output = tensor(device, format, n, shape.same(stride, co), 2);
    let weight = span_of(device, format, kernel_size * kernel_size * ci * co, 3);
    let [bias, mean, var] = [4, 5, 6].map(|number| span(device, co, number));
    let mut results = Vec::new();
    let moments = Epilogue::Moments { mean, var };
    for epilogue in [Epilogue::None, Epilogue::Bias(bias), Epilogue::BiasRelu(bias), moments] {
        device.run(Op::Conv2dForward { window, input, weight, epilogue, output });
        results.push(read(device, output));
    }
    results.extend([read_span(device, mean), read_span(device, var)]);
    let (grad_output, grad_input) = (output, tensor(device, format, n, shape, 7));
    for update in [Update::Add, Update::Overwrite] {
        device.run(Op::Conv2dGradInput { window, grad_output, weight, update, grad_input });
        results.push(read(device, grad_input));
    }
    let grad_weight = span(device, weight.len, 8);
    device.run(Op::Conv2dGradWeight { window, input, grad_output, grad_weight });
    results.push(read_span(device, grad_weight));
    results
}

fn pointwise<D: Device>(
    device: &mut D,
    format: Format,
    [n, h, w, ci]: [usize; 4],
) -> Vec<Vec<f64>> {
    const WIDTHS: [usize; 3] = [5, 12, 1];
    let shape = Shape { h, w, c: ci };
    let wide = Shape { c: WIDTHS.iter().sum(), ..shape };
    let input = tensor(device, format, n, shape, 1);
    let output = tensor(device, format, n, wide, 2);
    let mut start = 0;
    let places = WIDTHS.map(|c| {
        start += c;
        output.channels(start - c, c)
    });
    let weights = [3, 4, 5].map(|number| span_of(device, format, ci * WIDTHS[number - 3], number));
    let [mean, var] = [6, 7].map(|number| span(device, WIDTHS[0], number));
    let [one, two] = [1, 2].map(|index| span(device, WIDTHS[index], 8));
    let moments = Epilogue::Moments { mean, var };
    let mut number = 0..3;
    let convs = [moments, Epilogue::BiasRelu(one), Epilogue::Bias(two)].map(|epilogue| {
        let index = number.next().unwrap();
        Pointwise { weight: weights[index], epilogue, output: places[index] }
    });
    device.run(Op::PointwiseForward { input, convs });
    let mut results = vec![read(device, output), read_span(device, mean), read_span(device, var)];
    let grads = |weights: [Span; 3]| {
        let mut number = 0..3;
        weights.map(|weight| PointwiseGrad { grad_output: places[number.next().unwrap()], weight })
    };
    let grad_input = tensor(device, format, n, shape, 9);
    device.run(Op::PointwiseGradInput { convs: grads(weights), grad_input });
    let grad_weights = weights.map(|weight| span(device, weight.len, 10));
    device.run(Op::PointwiseGradWeight { input, convs: grads(grad_weights) });
    results.push(read(device, grad_input));
    results.extend(grad_weights.map(|span| read_span(device, span)));
    results
}

fn activation<D: Device>(
    device: &mut D,
    format: Format,
    [n, h, w, c]: [usize; 4],
) -> Vec<Vec<f64>> {
    let shape = Shape { h, w, c };
    let [input, output, grad] = [1, 2, 3].map(|number| tensor(device, format, n, shape, number));
    let [mean, var, weight, bias] = [4, 5, 6, 7].map(|number| span(device, c, number));
    let [grad_weight, grad_bias] = [8, 9].map(|number| span(device, c, number));
    let bn = BatchNorm { mean, var, weight, bias };
    device.run(Op::Moments { input, mean, var });
    device.run(Op::BatchNormRelu { bn, input, output });
    let mut results = vec![read(device, output), read_span(device, mean), read_span(device, var)];
    let beside = tensor(device, format, n, shape, 12);
    for (grad_output, grad_input) in [(grad, beside), (grad, grad)] {
        device.run(Op::BatchNormReluBackward {
            bn,
            input,
            grad_output,
            grad_input,
            grad_weight,
            grad_bias,
        });
        results.extend([read(device, grad), read(device, beside), read_span(device, grad_weight)]);
        results.push(read_span(device, grad_bias));
    }
    device.run(Op::ReluBackward { output, grad });
    device.run(Op::AddBias { bias, tensor: grad });
    device.run(Op::BiasBackward { grad_output: grad, grad_bias });
    results.extend([read(device, grad), read_span(device, grad_bias)]);
    for window in [(3, 1), (3, 2), (2, 2)] {
        let window = Window { kernel_size: window.0, stride: window.1 };
        let pooled = shape.same(window.stride, c);
        let output = tensor(device, format, n, pooled, 10);
        let places = places(device, n, pooled);
        device.run(Op::MaxPoolForward { window, input, output, places: Some(places) });
        results.extend([read(device, output), read(device, places)]);
        for update in [Update::Add, Update::Overwrite] {
            let (grad_output, grad_input) = (output, grad);
            device.run(Op::MaxPoolBackward { window, places, grad_output, update, grad_input });
            results.push(read(device, grad));
        }
    }
    results
}

fn matrices<D: Device>(device: &mut D, format: Format, [m, n, k]: [usize; 3]) -> Vec<Vec<f64>> {
    let (a, b, c) = (
        span_of(device, format, m * k, 1),
        span_of(device, format, k * n, 2),
        span(device, m * n, 3),
    );
    let mut results = Vec::new();
    for (transpose_a, transpose_b) in [(false, false), (true, false), (false, true), (true, true)] {
        let gemm = Gemm { m, n, k, transpose_a, transpose_b };
        device.run(Op::Gemm { gemm, a, b, c });
        results.push(read_span(device, c));
    }
    let (penalty, grad_weight) = (span(device, 1, 4), span(device, a.len, 5));
    let weight = span(device, a.len, 6);
    device.run(Op::Cast { input: weight, output: a });
    results.push(read_span(device, a));
    device.run(Op::WeightDecay { decay: 0.25, weight, grad_weight, penalty });
    results.extend([read_span(device, penalty), read_span(device, grad_weight)]);
    results
}

fn classification<D: Device>(
    device: &mut D,
    format: Format,
    [n, classes]: [usize; 2],
) -> Vec<Vec<f64>> {
    let shape = Shape { h: 1, w: 1, c: classes };
    let logits = tensor(device, Format::Full, n, shape, 1);
    let grad_logits = tensor(device, format, n, shape, 2);
    let [loss, top1] = [3, 4].map(|number| span(device, 1, number));
    let labels = span(device, n, 5);
    let label = |row: usize| D::Elem::from_f64((row * 7 % classes) as f64);
    device.upload(labels, &(0..n).map(label).collect::<Vec<_>>());
    device.run(Op::SoftmaxCrossEntropy { logits, labels, grad_logits, loss, top1 });
    let mut results =
        vec![read(device, grad_logits), read_span(device, loss), read_span(device, top1)];
    let maps = tensor(device, format, n, Shape { h: 3, w: 2, c: classes }, 6);
    let coordinates = DropoutCoordinates {
        seed: 0x1234_5678_9abc_def0,
        step: GlobalStep(7),
        replica: ReplicaId(3),
    };
    device.set_dropout(coordinates);
    for (spatial, layer) in [(false, 0), (true, 2)] {
        let mask = Mask { keep: 0.75, spatial, layer };
        device.run(Op::Dropout { mask, tensor: maps });
        results.push(read(device, maps));
    }
    results
}

/// |d| / |reference| in the 2-norm, or |d| where the reference is all zeros.
fn error(values: &[f64], reference: &[f64]) -> f64 {
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let difference = norm(&mut values.iter().zip(reference).map(|(a, b)| a - b));
    match norm(&mut reference.iter().copied()) {
        0.0 => difference,
        size => difference / size,
    }
}

fn check_within(
    results: &[Vec<f64>],
    reference: &[Vec<f64>],
    limit: f64,
    sizes: impl std::fmt::Debug,
    device: &str,
) {
    for (index, (values, reference)) in results.iter().zip(reference).enumerate() {
        let error = error(values, reference);
        assert!(error < limit, "{sizes:?} on {device}, result {index}: {error:e}");
    }
}

/// Where the libraries of the GPU under test are: the software one's, or with `HW2_TEST_GPU=real`
/// where this machine has CUDA.
pub(crate) fn cuda_lib_dir() -> Option<&'static Path> {
    let is_real = std::env::var_os("HW2_TEST_GPU").is_some_and(|value| value == "real");
    if is_real { None } else { Some(hw2_softgpu::libraries()) }
}

/// The GPU under test, for activations of `precision`.
pub(crate) fn gpu(precision: Precision) -> Cuda {
    Cuda::new(0, cuda_lib_dir(), precision).unwrap()
}

/// A GPU, and one that takes a single image at a time.
fn gpus(precision: Precision) -> [Cuda; 2] {
    [gpu(precision), gpu(precision).one_image_at_a_time()]
}

/// Runs `case` on every device: within 1e-5 of the plain loops in f64, and for several numbers of
/// threads, or twice, equal bits. With activations in bfloat16 they are rounded now and then where
/// the plain loops round once.
macro_rules! compare {
    ($sizes:expr, $case:ident) => {
        for sizes in $sizes {
            let full = Format::Full;
            let reference = $case(&mut Plain::<f64>::new(), full, sizes);
            let check = |results: &[Vec<f64>], device: &str| {
                check_within(results, &reference, 1e-5, sizes, device);
            };
            check(&$case(&mut Plain::<f32>::new(), full, sizes), "plain loops in f32");
            let first = $case(&mut Cpu::new(1).unwrap(), full, sizes);
            check(&first, "CPU");
            for threads in [2, 3, 7] {
                let values = $case(&mut Cpu::new(threads).unwrap(), full, sizes);
                assert_eq!(values, first, "{sizes:?} with {threads} threads");
            }
            for (mut gpu, mut again) in gpus(Precision::Fp32).into_iter().zip(gpus(Precision::Fp32))
            {
                let first = $case(&mut gpu, full, sizes);
                check(&first, "GPU");
                assert_eq!($case(&mut again, full, sizes), first, "{sizes:?} on GPU again");
            }
            let half = Format::Bf16;
            let reference = $case(&mut Plain::<f64>::new(), half, sizes);
            for mut gpu in gpus(Precision::Bf16) {
                let results = $case(&mut gpu, half, sizes);
                check_within(&results, &reference, 8e-3, sizes, "GPU in bfloat16");
            }
        }
    };
}

#[test]
fn convolutions() {
    compare!(CONVOLUTIONS, convolution);
}

#[test]
fn pointwise_convolutions() {
    compare!(ACTIVATIONS, pointwise);
}

#[test]
fn activations() {
    compare!(ACTIVATIONS, activation);
}

#[test]
fn products() {
    compare!(PRODUCTS, matrices);
}

#[test]
fn classifications() {
    compare!(BATCHES, classification);
}
