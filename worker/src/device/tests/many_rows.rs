//! Sums over so many rows that a GPU takes more of them at once.

use super::*;

fn sums<D: Device>(device: &mut D, format: Format) -> Vec<Vec<f64>> {
    let shape = Shape { h: 515, w: 510, c: 8 };
    let [input, output, grad] = [1, 2, 3].map(|number| tensor(device, format, 1, shape, number));
    for (number, tensor) in [(1, input), (3, grad)] {
        // Around 0 a sum would be nothing but what cancellation leaves.
        let whole = Span { buffer: tensor.buffer, offset: 0, len: tensor.rows() * tensor.ld };
        let above = |number: f64| D::Elem::from_f64(f64::from((number + 0.3) as f32));
        let numbers = numbers::<f64>(whole.len, number).into_iter().map(above);
        device.upload(whole, &numbers.collect::<Vec<_>>());
    }
    let [mean, var, weight, bias] = [4, 5, 6, 7].map(|number| span(device, shape.c, number));
    let [grad_weight, grad_bias, sum] = [8, 9, 10].map(|number| span(device, shape.c, number));
    let bn = BatchNorm { mean, var, weight, bias };
    device.run(Op::Moments { input, mean, var });
    device.run(Op::BatchNormRelu { bn, input, output });
    device.run(Op::BiasBackward { grad_output: grad, grad_bias: sum });
    let (grad_output, grad_input) = (grad, grad);
    device.run(Op::BatchNormReluBackward {
        bn,
        input,
        grad_output,
        grad_input,
        grad_weight,
        grad_bias,
    });
    let spans = [mean, var, sum, grad_weight, grad_bias];
    let tensors = [output, grad].map(|tensor| read(device, tensor));
    tensors.into_iter().chain(spans.map(|span| read_span(device, span))).collect()
}

#[test]
fn of_long_blocks() {
    let reference = sums(&mut Plain::<f64>::new(), Format::Full);
    let [mut gpu, _] = gpus(Precision::Fp32);
    check_within(&sums(&mut gpu, Format::Full), &reference, 1e-5, "many rows", "GPU");
    let reference = sums(&mut Plain::<f64>::new(), Format::Bf16);
    let [mut gpu, _] = gpus(Precision::Bf16);
    check_within(&sums(&mut gpu, Format::Bf16), &reference, 8e-3, "many rows", "GPU in bfloat16");
}
