//! Convolution as matrix products over columns, some images at a time.

use super::launch::{Arg, LANES, Place, Traffic, int, number_bytes, numbers, window as window_arg};
use super::lower::{Limits, Lowering, Rows};
use super::unit::{Unit, wide_numbers};
use super::{batch_norm, bias, cast};
use crate::device::{Epilogue, Format, Op, Span, Tensor, Update, Window};

/// Some images of a convolution, whose columns are in the workspace together.
struct Strip {
    /// Index of the first.
    first: usize,
    images: usize,
    /// Strips take turns, so that the columns of one are made while those of another are
    /// multiplied.
    lane: usize,
}

/// What a window sees, in numbers.
fn taps(window: Window, c: usize) -> usize {
    window.kernel_size * window.kernel_size * c
}

/// Numbers of one row of columns of `input`: filled up, so that cuBLAS can read 16 bytes at once.
fn row_numbers(window: Window, input: Tensor) -> usize {
    taps(window, input.shape.c).next_multiple_of(wide_numbers(input))
}

/// Images of which the columns are made at once in one lane.
fn images_at_once(limits: Limits, window: Window, input: Tensor, output: Tensor) -> usize {
    let row = number_bytes(input.buffer.format) * row_numbers(window, input);
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
    Some(images * output.shape.h * output.shape.w * row_numbers(window, input))
}

fn strips(to: &Lowering, window: Window, input: Tensor, output: Tensor) -> Vec<Strip> {
    let images = images_at_once(to.limits, window, input, output);
    let strip =
        |(index, first)| Strip { first, images: images.min(input.n - first), lane: index % LANES };
    (0..input.n).step_by(images).enumerate().map(strip).collect()
}

/// For each lane the columns of the first strip of images like `input`; it is the largest.
fn columns(
    to: &mut Lowering,
    strips: &[Strip],
    window: Window,
    input: Tensor,
    output: Tensor,
) -> Vec<Columns> {
    let rows = strips[0].images * output.shape.h * output.shape.w;
    let (format, len) = (input.buffer.format, row_numbers(window, input));
    let bytes = number_bytes(format) * rows * len;
    let lanes = 0..strips.len().min(LANES);
    lanes.map(|_| Columns { place: to.scratch(bytes), format, len }).collect()
}

/// Room for the columns of a strip.
#[derive(Clone, Copy)]
struct Columns {
    place: Place,
    format: Format,
    /// Numbers of a row.
    len: usize,
}

impl Columns {
    fn rows(self) -> Rows {
        Rows::columns(self.place, self.format, self.len)
    }

    /// Of images that make `output`.
    fn bytes(self, places: usize) -> usize {
        number_bytes(self.format) * places * self.len
    }
}

/// Images `strip` of a tensor.
fn images(tensor: Tensor, strip: &Strip) -> Tensor {
    let pixels = tensor.shape.h * tensor.shape.w;
    Tensor { offset: tensor.offset + strip.first * pixels * tensor.ld, n: strip.images, ..tensor }
}

fn im2col(to: &mut Lowering, window: Window, input: Tensor, output: Tensor, columns: Columns) {
    let unit = Unit::of(&[input]);
    let mut args = vec![input.into(), columns.place.into(), window_arg(window, input)];
    args.extend([input.shape.c, input.ld].map(|len| unit.int(len)));
    let traffic = Traffic::default().reads(input).columns(columns.bytes(output.rows()));
    if unit.is_wide() {
        let count = output.rows() * unit.count(input.shape.c);
        to.for_each("im2col_wide", count, traffic, args);
    } else {
        let row_wides = columns.len / wide_numbers(input);
        args.push(int(row_wides));
        to.for_each("im2col", output.rows() * row_wides, traffic, args);
    }
}

fn col2im(to: &mut Lowering, window: Window, columns: Columns, update: Update, output: Tensor) {
    let unit = Unit::of(&[output]);
    let places = output.n * window.places(output.shape.h) * window.places(output.shape.w);
    let mut args: Vec<Arg> = vec![columns.place.into(), output.into(), window_arg(window, output)];
    args.extend([output.shape.c, output.ld, columns.len].map(|len| unit.int(len)));
    let adds = usize::from(update == Update::Add);
    args.push(int(adds));
    let traffic = Traffic::default().writes(output).columns(columns.bytes(places));
    let traffic = if adds == 1 { traffic.reads(output) } else { traffic };
    let kernel = unit.kernel("col2im", "col2im_wide");
    to.for_each(kernel, unit.count(numbers(output)), traffic, args);
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
    if window == Window::POINT {
        let size = [output.rows(), co, k];
        to.product(size, Rows::of(input), Rows::new(weight, co), 0.0, Rows::of(output));
    } else {
        let strips = strips(to, window, input, output);
        let columns = columns(to, &strips, window, input, output);
        let weight = filled_up(to, weight, [k, columns[0].len], co);
        for strip in &strips {
            let (input, output) = (images(input, strip), images(output, strip));
            let columns = columns[strip.lane];
            to.in_lane(strip.lane, |to| {
                im2col(to, window, input, output, columns);
                let size = [output.rows(), co, columns.len];
                to.product(size, columns.rows(), weight, 0.0, Rows::of(output));
            });
        }
    }
    finish(to, epilogue, output);
}

/// `weight` (k, co) with rows of zeros below it, if columns are that much longer.
fn filled_up(to: &mut Lowering, weight: Span, [k, len]: [usize; 2], co: usize) -> Rows {
    if k == len {
        return Rows::new(weight, co);
    }
    let format = weight.buffer.format;
    let filled = to.scratch(number_bytes(format) * len * co);
    let kernel = cast::fill_up(weight, filled, len * co);
    let bytes = number_bytes(format) * len * co;
    to.push(kernel, Traffic::default().reads(weight).columns(bytes));
    Rows::columns(filled, format, co)
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
        let columns = columns[strip.lane];
        to.in_lane(strip.lane, |to| {
            to.product(size, Rows::of(grad_output), weight, 0.0, columns.rows());
            col2im(to, window, columns, update, grad_input);
        });
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
    if window == Window::POINT {
        let size = [k, co, grad_output.rows()];
        let input = Rows::of(input).transposed();
        to.product(size, input, Rows::of(grad_output), 0.0, Rows::new(grad_weight, co));
        return;
    }
    let strips = strips(to, window, input, grad_output);
    let columns = columns(to, &strips, window, input, grad_output);
    let is_filled = columns[0].len > k;
    let numbers = columns[0].len * co;
    // Each lane has a sum of its own. In rows that are filled up there are more numbers than are
    // wanted.
    let sums: Vec<Rows> = (0..columns.len())
        .map(|lane| match lane == 0 && !is_filled {
            true => Rows::new(grad_weight, co),
            false => Rows::columns(to.scratch(4 * numbers), Format::Full, co),
        })
        .collect();
    for strip in &strips {
        let (input, grad_output) = (images(input, strip), images(grad_output, strip));
        let (columns, sum) = (columns[strip.lane], sums[strip.lane]);
        let beta = if strip.first < strips[0].images * LANES { 0.0 } else { 1.0 };
        to.in_lane(strip.lane, |to| {
            im2col(to, window, input, grad_output, columns);
            let size = [columns.len, co, grad_output.rows()];
            to.product(size, columns.rows().transposed(), Rows::of(grad_output), beta, sum);
        });
    }
    match sums[..] {
        [first, last] => cast::add(to, first.place, last.place, grad_weight),
        [only] if is_filled => cast::shorten(to, only.place, grad_weight),
        _ => {}
    }
}
