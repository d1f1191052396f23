//! A device that runs behind its caller: what was asked for comes in order all the same.

use super::*;
use crate::device::{Pipeline, Segment, Serial};

fn copy(input: Span, output: Span) -> Op {
    Op::Cast { input, output }
}

#[test]
fn uploads_arrive_before_they_are_read_and_none_is_lost() {
    let mut gpu = gpu(Precision::Fp32);
    let spans: Vec<Span> = (0..20).map(|number| span(&mut gpu, 700, number)).collect();
    let copies: Vec<Span> = spans.iter().map(|_| span(&mut gpu, 700, 99)).collect();
    for round in 1..4 {
        for (number, (input, output)) in spans.iter().zip(&copies).enumerate() {
            gpu.upload(*input, &numbers(700, round * 20 + number));
            gpu.run(copy(*input, *output));
        }
        for (number, output) in copies.iter().enumerate() {
            assert_eq!(read_span(&mut gpu, *output), numbers::<f64>(700, round * 20 + number));
        }
    }
}

/// Of `n` images to channels; the more images, the more memory for columns.
fn convolved(device: &mut Cuda, n: usize) -> [Op; 2] {
    let shape = Shape { h: 6, w: 6, c: 4 };
    let (window, update) = (Window { kernel_size: 3, stride: 1 }, Update::Overwrite);
    let [input, output, back] =
        [1, 2, 3].map(|number| tensor(device, Format::Full, n, shape, number));
    let weight = span(device, 9 * 4 * 4, 4);
    let (epilogue, grad_output, grad_input) = (Epilogue::None, output, back);
    [
        Op::Conv2dForward { window, input, weight, epilogue, output },
        Op::Conv2dGradInput { window, grad_output, weight, update, grad_input },
    ]
}

#[test]
fn graphs_do_not_outlive_the_memory_that_they_use() {
    let mut gpu = gpu(Precision::Fp32);
    let small = convolved(&mut gpu, 1);
    let Op::Conv2dGradInput { grad_input, .. } = small[1] else { unreachable!() };
    gpu.run_all(&small);
    let expected = read(&mut gpu, grad_input);
    let nothing = vec![0.0; expected.len()];
    let whole = Span { buffer: grad_input.buffer, offset: 0, len: expected.len() };
    for images in [0, 0, 0, 9, 0, 40, 0] {
        if images > 0 {
            let large = convolved(&mut gpu, images);
            gpu.run_all(&large);
        }
        gpu.upload(whole, &nothing);
        gpu.run_all(&small);
        let found = read(&mut gpu, grad_input);
        let inside = |values: &[f64]| -> Vec<f64> {
            values.chunks(grad_input.ld).flat_map(|row| row[4..8].to_vec()).collect()
        };
        assert_eq!(inside(&found), inside(&expected), "after {images} images");
    }
}

fn staged<P: Pipeline>(mut device: P) {
    let [input, output] = [1, 2].map(|number| span(&mut device, 50, number));
    let before: Vec<f64> = numbers(50, 1);
    let segments = [Segment { ops: vec![copy(input, output)], made: output }];
    let mut last = before.clone();
    for round in 3..8 {
        device.stage(input, &numbers(50, round));
        assert_eq!(read_span(&mut device, input), last, "it is not the next step yet");
        device.take_staged();
        device.begin(&segments);
        let made: Vec<f64> = device.next().unwrap().iter().map(|value| value.to_f64()).collect();
        last = numbers(50, round);
        assert_eq!(made, last);
    }
}

#[test]
fn what_is_staged_comes_when_the_next_step_begins() {
    staged(Serial::new(Plain::<f64>::new()));
    staged(gpu(Precision::Fp32));
}

#[test]
fn a_gpu_rounds_to_bfloat16_as_the_plain_loops_do() {
    fn rounded<D: Device>(device: &mut D) -> Vec<f64> {
        let input = span(device, 2003, 5);
        let output = span_of(device, Format::Bf16, 2003, 6);
        device.run(copy(input, output));
        read_span(device, output)
    }
    assert_eq!(rounded(&mut gpu(Precision::Bf16)), rounded(&mut Plain::<f64>::new()));
}

#[test]
fn what_cannot_be_done_is_refused_before_it_is_asked_for() {
    let mut gpu = gpu(Precision::Fp32);
    let images = tensor(&mut gpu, Format::Full, 1, Shape { h: 1, w: 1, c: 4 }, 1);
    gpu.make_room(&[Op::ReluBackward { output: images, grad: images }]);
    gpu.finish().unwrap();
    let many = Tensor { n: 1 << 30, ..images };
    gpu.make_room(&[Op::ReluBackward { output: many, grad: many }]);
    let error = gpu.finish().unwrap_err().to_string();
    for part in ["GPU 0 (GPU-", "relu_backward", "batch_size"] {
        assert!(error.contains(part), "{error}");
    }
}
