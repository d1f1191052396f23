//! Batch normalisation over few rows.

use super::*;

/// Not a multiple of any vector.
const CHANNELS: usize = 37;

/// Output, and after backward the gradients of input, weight and bias. Numbers of even rows lie 0.5
/// to 1 above 0.3 and those of odd rows as far below, so that no channel has a small variance.
fn batch_norm<D: Device>(device: &mut D, rows: usize) -> [Vec<f64>; 4] {
    let shape = Shape { h: 1, w: 1, c: CHANNELS };
    let [input, output, grad] =
        [1, 2, 3].map(|number| tensor(device, Format::Full, rows, shape, number));
    let ld = input.ld;
    let far = numbers::<f64>(rows * ld, 1).into_iter().enumerate().map(|(i, number)| {
        let side = if i / ld % 2 == 0 { 1.0 } else { -1.0 };
        D::Elem::from_f64(f64::from((0.3 + side * (0.75 + number / 4.0)) as f32))
    });
    let whole = Span { buffer: input.buffer, offset: 0, len: rows * ld };
    device.upload(whole, &far.collect::<Vec<_>>());
    let [mean, var, weight, bias] = [4, 5, 6, 7].map(|number| span(device, CHANNELS, number));
    let [grad_weight, grad_bias] = [8, 9].map(|number| span(device, CHANNELS, number));
    let bn = BatchNorm { mean, var, weight, bias };
    device.run(Op::Moments { input, mean, var });
    device.run(Op::BatchNormRelu { bn, input, output });
    let (grad_output, grad_input) = (grad, grad);
    device.run(Op::BatchNormReluBackward {
        bn,
        input,
        grad_output,
        grad_input,
        grad_weight,
        grad_bias,
    });
    let mut channels = |tensor: Tensor| {
        let numbers = read(device, tensor);
        numbers.chunks(ld).flat_map(|row| row[4..4 + CHANNELS].to_vec()).collect()
    };
    let (output, grad) = (channels(output), channels(grad));
    [output, grad, read_span(device, grad_weight), read_span(device, grad_bias)]
}

/// Over two rows, half of whose difference is d, the gradient of the input is epsilon / (d^2 +
/// epsilon) of what it is made from.
#[test]
fn the_gradient_is_exact_where_it_cancels() {
    for rows in [1, 2, 3, 4, 15, 16, 17] {
        let reference = batch_norm(&mut Plain::<f64>::new(), rows);
        if rows == 2 {
            let size = reference[1].iter().fold(0.0, |size: f64, grad| size.max(grad.abs()));
            assert!((1e-6..1e-4).contains(&size), "{size:e} is not what cancellation leaves");
        }
        for values in [
            batch_norm(&mut Plain::<f32>::new(), rows),
            batch_norm(&mut Cpu::new(2).unwrap(), rows),
            batch_norm(&mut gpus(Precision::Fp32)[0], rows),
        ] {
            for (index, (values, reference)) in values.iter().zip(&reference).enumerate() {
                let error = error(values, reference);
                assert!(error < 1e-5, "{rows} rows, result {index}: {error:e}");
            }
        }
    }
}

/// What lets the plain loops do the backward pass of a forward pass that they have not done: equal
/// bits mean that each ReLU sees the same sign.
#[test]
fn plain_and_fast_forward_have_the_same_bits() {
    for rows in [2, 15, 16, 300] {
        let [plain, ..] = batch_norm(&mut Plain::<f32>::new(), rows);
        let [fast, ..] = batch_norm(&mut Cpu::new(2).unwrap(), rows);
        assert_eq!(fast, plain, "{rows} rows");
    }
}
