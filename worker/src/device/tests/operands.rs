//! That [`Op::reads`] and [`Op::writes`] say what the plain loops read and write.

use hw2_common::ids::{GlobalStep, ReplicaId};

use super::*;
use crate::device::{Buffer, DropoutCoordinates, Mask, Operand};

const N: usize = 2;
const SHAPE: Shape = Shape { h: 5, w: 4, c: 3 };
const WINDOW: Window = Window { kernel_size: 3, stride: 2 };
const CLASSES: usize = 4;

/// A device with operands, each in a buffer of its own, and the numbers of all buffers.
struct Setup {
    device: Plain<f64>,
    numbers: Vec<Vec<f64>>,
    buffers: Vec<Buffer>,
}

impl Setup {
    fn new() -> Self {
        let mut device = Plain::new();
        let (seed, step, replica) = (3, GlobalStep(4), ReplicaId(1));
        device.set_dropout(DropoutCoordinates { seed, step, replica });
        Self { device, numbers: Vec::new(), buffers: Vec::new() }
    }

    fn buffer(&mut self, values: Vec<f64>) -> Buffer {
        let buffer = self.device.alloc(&[Request::lasting(values.len())])[0];
        self.buffers.push(buffer);
        self.numbers.push(values);
        buffer
    }

    /// Positive numbers in the midst of a buffer, so that roots exist.
    fn span(&mut self, len: usize) -> Span {
        let numbers = numbers::<f64>(len + 3, self.buffers.len());
        let buffer = self.buffer(numbers.iter().map(|number| number + 1.5).collect());
        Span { buffer, offset: 2, len }
    }

    /// Some channels of a wider tensor.
    fn tensor(&mut self, shape: Shape) -> Tensor {
        let wide = Shape { c: shape.c + 3, ..shape };
        let numbers = numbers(N * wide.len(), self.buffers.len());
        Tensor::new(self.buffer(numbers), N, wide).channels(1, shape.c)
    }

    /// All buffers after `op` on `numbers`.
    fn run(&mut self, op: Op, numbers: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let whole = |buffer: &Buffer, len| Span { buffer: *buffer, offset: 0, len };
        for (buffer, numbers) in self.buffers.iter().zip(numbers) {
            self.device.upload(whole(buffer, numbers.len()), numbers);
        }
        self.device.run(op);
        let read = |(buffer, numbers): (&Buffer, &Vec<f64>)| {
            read_span(&mut self.device, whole(buffer, numbers.len()))
        };
        self.buffers.iter().zip(numbers).map(read).collect()
    }

    /// The numbers with NaN in every place for which `blank` holds, given its buffer and index.
    fn with_nan(&self, blank: impl Fn(Buffer, usize) -> bool) -> Vec<Vec<f64>> {
        let mut numbers = self.numbers.clone();
        for (buffer, values) in self.buffers.iter().zip(&mut numbers) {
            for (index, value) in values.iter_mut().enumerate() {
                *value = if blank(*buffer, index) { f64::NAN } else { *value };
            }
        }
        numbers
    }

    /// The numbers of all `operands` in `numbers`.
    fn of(&self, operands: &[Operand], numbers: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let of = |operand: &Operand| {
            let buffer = self.buffers.iter().position(|buffer| *buffer == operand.buffer).unwrap();
            let Span { offset, len, .. } = operand.hull();
            operand.rows_of(&numbers[buffer][offset..offset + len]).flatten().copied().collect()
        };
        operands.iter().map(of).collect()
    }

    /// `op` changes all that it writes and nothing else. The result depends on all that it reads
    /// and on nothing else: that may as well be NaN.
    fn check(&mut self, op: Op) {
        let (reads, writes) = (op.reads(), op.writes());
        let before = self.numbers.clone();
        let after = self.run(op, &before);
        for (index, (buffer, after)) in self.buffers.iter().zip(&after).enumerate() {
            for (place, (after, before)) in after.iter().zip(&before[index]).enumerate() {
                let written = writes.iter().any(|operand| holds(operand, *buffer, place));
                assert!(written || after == before, "{op} changes {place} of buffer {index}");
            }
        }
        let (old, result) = (self.of(&writes, &before), self.of(&writes, &after));
        for (operand, (old, result)) in writes.iter().zip(old.iter().zip(&result)) {
            assert!(result.len() == operand.len() && result != old, "{op}, result {operand:?}");
        }
        let others = |buffer, index| !reads.iter().any(|operand| holds(operand, buffer, index));
        let without = self.run(op, &self.with_nan(others));
        assert!(self.of(&writes, &without) == result, "{op} depends on what it does not read");
        for operand in reads {
            let without = self.with_nan(|buffer, index| holds(&operand, buffer, index));
            let without = self.run(op, &without);
            assert!(self.of(&writes, &without) != result, "{op} does not depend on {operand:?}");
        }
    }
}

/// Whether number `index` of `buffer` is one of `operand`.
fn holds(operand: &Operand, buffer: Buffer, index: usize) -> bool {
    let inside = |index| index / operand.ld < operand.rows && index % operand.ld < operand.row_len;
    buffer == operand.buffer && index.checked_sub(operand.offset).is_some_and(inside)
}

#[test]
fn of_convolutions() {
    let mut setup = Setup::new();
    let (window, out) = (WINDOW, SHAPE.same(WINDOW.stride, 4));
    let (input, output) = (setup.tensor(SHAPE), setup.tensor(out));
    let weight = setup.span(9 * SHAPE.c * out.c);
    let [bias, mean, var] = [(); 3].map(|()| setup.span(out.c));
    let moments = Epilogue::Moments { mean, var };
    for epilogue in [Epilogue::None, Epilogue::Bias(bias), Epilogue::BiasRelu(bias), moments] {
        setup.check(Op::Conv2dForward { window, input, weight, epilogue, output });
    }
    let (grad_output, grad_input) = (output, input);
    for update in [Update::Overwrite, Update::Add] {
        setup.check(Op::Conv2dGradInput { window, grad_output, weight, update, grad_input });
    }
    setup.check(Op::Conv2dGradWeight { window, input, grad_output, grad_weight: weight });
}

#[test]
fn of_pointwise_convolutions() {
    let mut setup = Setup::new();
    let input = setup.tensor(SHAPE);
    let output = setup.tensor(Shape { c: 6, ..SHAPE });
    let weights = [1, 2, 3].map(|c| setup.span(c * SHAPE.c));
    let [mean, var] = [(); 2].map(|()| setup.span(1));
    let [one, two] = [2, 3].map(|c| setup.span(c));
    let places = [(0, 1), (1, 2), (3, 3)].map(|(start, c)| output.channels(start, c));
    let epilogues = [Epilogue::Moments { mean, var }, Epilogue::BiasRelu(one), Epilogue::Bias(two)];
    let convs = [0, 1, 2].map(|index| Pointwise {
        weight: weights[index],
        epilogue: epilogues[index],
        output: places[index],
    });
    setup.check(Op::PointwiseForward { input, convs });
    let convs =
        [0, 1, 2].map(|index| PointwiseGrad { grad_output: places[index], weight: weights[index] });
    setup.check(Op::PointwiseGradInput { convs, grad_input: input });
    setup.check(Op::PointwiseGradWeight { input, convs });
}

#[test]
fn of_activations() {
    let mut setup = Setup::new();
    let [input, output] = [(); 2].map(|()| setup.tensor(SHAPE));
    let [mean, var, weight, bias] = [(); 4].map(|()| setup.span(SHAPE.c));
    let [grad_weight, grad_bias] = [(); 2].map(|()| setup.span(SHAPE.c));
    let bn = BatchNorm { mean, var, weight, bias };
    setup.check(Op::Moments { input, mean, var });
    setup.check(Op::BatchNormRelu { bn, input, output });
    let beside = setup.tensor(SHAPE);
    for grad_input in [output, beside] {
        setup.check(Op::BatchNormReluBackward {
            bn,
            input,
            grad_output: output,
            grad_input,
            grad_weight,
            grad_bias,
        });
    }
    setup.check(Op::ReluBackward { output: input, grad: output });
    setup.check(Op::AddBias { bias, tensor: input });
    setup.check(Op::BiasBackward { grad_output: input, grad_bias });
    let [numbers, copies] = [(); 2].map(|()| setup.span(7));
    setup.check(Op::Cast { input: numbers, output: copies });
    for spatial in [false, true] {
        setup.check(Op::Dropout { mask: Mask { keep: 0.5, spatial, layer: 0 }, tensor: input });
    }
}

#[test]
fn of_pools() {
    let mut setup = Setup::new();
    let window = WINDOW;
    let input = setup.tensor(SHAPE);
    let [output, places] = [(); 2].map(|()| setup.tensor(SHAPE.same(window.stride, SHAPE.c)));
    setup.check(Op::MaxPoolForward { window, input, output, places: None });
    let forward = Op::MaxPoolForward { window, input, output, places: Some(places) };
    setup.check(forward);
    setup.numbers = setup.run(forward, &setup.numbers.clone());
    let (grad_output, grad_input) = (output, input);
    for update in [Update::Overwrite, Update::Add] {
        setup.check(Op::MaxPoolBackward { window, places, grad_output, update, grad_input });
    }
}

#[test]
fn of_matrices_and_losses() {
    let mut setup = Setup::new();
    let gemm = Gemm { m: 2, n: 3, k: 4, transpose_a: false, transpose_b: true };
    let (a, b, c) = (setup.span(8), setup.span(12), setup.span(6));
    setup.check(Op::Gemm { gemm, a, b, c });
    let [penalty, loss, top1] = [(); 3].map(|()| setup.span(1));
    let grad_weight = setup.span(a.len);
    setup.check(Op::WeightDecay { decay: 0.25, weight: a, grad_weight, penalty });
    let [logits, grad_logits] = [(); 2].map(|()| setup.tensor(Shape { h: 1, w: 1, c: CLASSES }));
    let labels = setup.span(N);
    let number = setup.buffers.len() - 1;
    setup.numbers[number].fill(2.0);
    setup.check(Op::SoftmaxCrossEntropy { logits, labels, grad_logits, loss, top1 });
}
