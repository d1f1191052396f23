//! Convolution as matrix products over columns, some images at a time.

use super::launch::{Arg, Place, Traffic, int, number_bytes, numbers, window as window_arg};
use super::lower::{Limits, Lowering, Rows};
use super::{batch_norm, bias};
use crate::device::{Epilogue, Format, Op, Span, Tensor, Update, Window};

/// Some images of a convolution, whose columns are in the workspace together.
struct Strip {
    /// Index of the first.
    first: usize,
    images: usize,
}

/// Numbers of one row of columns.
fn taps(window: Window, c: usize) -> usize {
    window.kernel_size * window.kernel_size * c
}

/// Images of which the columns are made at once.
fn images_at_once(limits: Limits, window: Window, input: Tensor, output: Tensor) -> usize {
    let row = number_bytes(input.buffer.format) * taps(window, input.shape.c);
    let image = output.shape.h * output.shape.w * row;
    (limits.column_bytes / image).clamp(1, input.n)
}

/// Numbers of the columns that are made at once, if `op` makes any.
pub(super) fn column_numbers(op: Op, limits: Limits) -> Option<usize> {
    let (window, input, output) = match op {
        Op::Conv2dForward { window, input, output, .. }
        | Op::Conv2dGradInput { window, grad_input: input, grad_output: output, .. }
        | Op::Conv2dGradWeight { window, input, grad_output: output, .. } => {
            (window, input, output)
        }
        _ => return None,
    };
    let images = images_at_once(limits, window, input, output);
    Some(images * output.shape.h * output.shape.w * taps(window, input.shape.c))
}

fn strips(to: &Lowering, window: Window, input: Tensor, output: Tensor) -> Vec<Strip> {
    let images = images_at_once(to.limits, window, input, output);
    let strip = |first| Strip { first, images: images.min(input.n - first) };
    (0..input.n).step_by(images).map(strip).collect()
}

/// Columns of the first strip of images like `input`; it is the largest.
fn columns(
    to: &mut Lowering,
    strips: &[Strip],
    window: Window,
    input: Tensor,
    output: Tensor,
) -> Columns {
    let rows = strips[0].images * output.shape.h * output.shape.w;
    let (format, taps) = (input.buffer.format, taps(window, input.shape.c));
    Columns { place: to.scratch(number_bytes(format) * rows * taps), format, taps }
}

/// Room for the columns of a strip.
#[derive(Clone, Copy)]
struct Columns {
    place: Place,
    format: Format,
    /// Numbers of a row.
    taps: usize,
}

impl Columns {
    fn rows(self) -> Rows {
        Rows::columns(self.place, self.format, self.taps)
    }

    /// Of images that make `output`.
    fn bytes(self, places: usize) -> usize {
        number_bytes(self.format) * places * self.taps
    }
}

/// Images `strip` of a tensor.
fn images(tensor: Tensor, strip: &Strip) -> Tensor {
    let pixels = tensor.shape.h * tensor.shape.w;
    Tensor { offset: tensor.offset + strip.first * pixels * tensor.ld, n: strip.images, ..tensor }
}

/// Whether the channels of `tensor`, and what is made from them, can be moved by fours.
fn by_fours(tensor: Tensor) -> bool {
    let fits = |numbers: usize| numbers.is_multiple_of(4);
    fits(tensor.shape.c) && fits(tensor.ld) && Place::from(tensor).is_aligned()
}

fn im2col(to: &mut Lowering, window: Window, input: Tensor, output: Tensor, columns: Columns) {
    let count = output.rows() * columns.taps;
    let (name, width) = if by_fours(input) { ("im2col_4", 4) } else { ("im2col_1", 1) };
    let mut args = vec![input.into(), columns.place.into(), window_arg(window, input)];
    args.extend([int(input.shape.c / width), int(input.ld / width)]);
    let traffic = Traffic::default().reads(input).columns(columns.bytes(output.rows()));
    to.for_each(name, count / width, traffic, args);
}

fn col2im(to: &mut Lowering, window: Window, columns: Columns, update: Update, output: Tensor) {
    let count = numbers(output);
    let places = output.n * window.places(output.shape.h) * window.places(output.shape.w);
    let (name, width) = if by_fours(output) { ("col2im_4", 4) } else { ("col2im_1", 1) };
    let mut args: Vec<Arg> = vec![columns.place.into(), output.into(), window_arg(window, output)];
    args.extend([int(output.shape.c / width), int(output.ld / width)]);
    let adds = usize::from(update == Update::Add);
    args.push(int(adds));
    let traffic = Traffic::default().writes(output).columns(columns.bytes(places));
    let traffic = if adds == 1 { traffic.reads(output) } else { traffic };
    to.for_each(name, count / width, traffic, args);
}

pub(super) fn forward(
    to: &mut Lowering,
    window: Window,
    input: Tensor,
    weight: Span,
    epilogue: Epilogue,
    output: Tensor,
) {
    let (k, co) = (taps(window, input.shape.c), output.shape.c);
    let weight = Rows::new(weight, co);
    if window == Window::POINT {
        let size = [output.rows(), co, k];
        to.product(size, Rows::of(input), weight, 0.0, Rows::of(output));
    } else {
        let strips = strips(to, window, input, output);
        let columns = columns(to, &strips, window, input, output);
        for strip in &strips {
            let (input, output) = (images(input, strip), images(output, strip));
            im2col(to, window, input, output, columns);
            let size = [output.rows(), co, k];
            to.product(size, columns.rows(), weight, 0.0, Rows::of(output));
        }
    }
    finish(to, epilogue, output);
}

/// What follows the sum.
pub(super) fn finish(to: &mut Lowering, epilogue: Epilogue, output: Tensor) {
    match epilogue {
        Epilogue::None => {}
        Epilogue::Bias(span) => bias::add(to, span, output, false),
        Epilogue::BiasRelu(span) => bias::add(to, span, output, true),
        Epilogue::Moments { mean, var } => batch_norm::moments(to, output, mean, var),
    }
}

pub(super) fn grad_input(
    to: &mut Lowering,
    window: Window,
    grad_output: Tensor,
    weight: Span,
    update: Update,
    grad_input: Tensor,
) {
    let (k, co) = (taps(window, grad_input.shape.c), grad_output.shape.c);
    let weight = Rows::new(weight, co).transposed();
    if window == Window::POINT {
        let beta = if update == Update::Add { 1.0 } else { 0.0 };
        let size = [grad_output.rows(), k, co];
        to.product(size, Rows::of(grad_output), weight, beta, Rows::of(grad_input));
        return;
    }
    let strips = strips(to, window, grad_input, grad_output);
    let columns = columns(to, &strips, window, grad_input, grad_output);
    for strip in &strips {
        let (grad_input, grad_output) = (images(grad_input, strip), images(grad_output, strip));
        let size = [grad_output.rows(), k, co];
        to.product(size, Rows::of(grad_output), weight, 0.0, columns.rows());
        col2im(to, window, columns, update, grad_input);
    }
}

pub(super) fn grad_weight(
    to: &mut Lowering,
    window: Window,
    input: Tensor,
    grad_output: Tensor,
    grad_weight: Span,
) {
    let (k, co) = (taps(window, input.shape.c), grad_output.shape.c);
    let grad_weight = Rows::new(grad_weight, co);
    if window == Window::POINT {
        let size = [k, co, grad_output.rows()];
        let input = Rows::of(input).transposed();
        to.product(size, input, Rows::of(grad_output), 0.0, grad_weight);
        return;
    }
    let strips = strips(to, window, input, grad_output);
    let columns = columns(to, &strips, window, input, grad_output);
    for strip in &strips {
        let (input, grad_output) = (images(input, strip), images(grad_output, strip));
        im2col(to, window, input, grad_output, columns);
        let size = [k, co, grad_output.rows()];
        let beta = if strip.first == 0 { 0.0 } else { 1.0 };
        to.product(size, columns.rows().transposed(), Rows::of(grad_output), beta, grad_weight);
    }
}
