//! The largest of each window; the first of equal ones wins.

use super::launch::{Arg, Traffic, int, numbers, window as window_arg};
use super::lower::Lowering;
use super::unit::Unit;
use crate::device::{Tensor, Update, Window};

pub(super) fn forward(
    to: &mut Lowering,
    window: Window,
    input: Tensor,
    output: Tensor,
    places: Option<Tensor>,
) {
    let tensors: Vec<Tensor> = [input, output].into_iter().chain(places).collect();
    let unit = Unit::of(&tensors);
    let (place, places_ld) = match places {
        Some(places) => (places.into(), places.ld),
        None => (Arg::Null, 0),
    };
    let mut args = vec![input.into(), output.into(), place, window_arg(window, input)];
    args.extend([input.shape.c, input.ld, output.ld, places_ld].map(|len| unit.int(len)));
    let count = unit.count(numbers(output));
    let traffic = Traffic::default().reads(input).writes(output);
    let traffic = places.map_or(traffic, |places| traffic.writes(places));
    let kernel = unit.kernel("max_pool_forward", "max_pool_forward_wide");
    to.for_each(kernel, count, traffic, args);
}

pub(super) fn backward(
    to: &mut Lowering,
    window: Window,
    places: Tensor,
    grad_output: Tensor,
    update: Update,
    grad_input: Tensor,
) {
    let mut args: Vec<Arg> = [grad_output, places, grad_input].map(Arg::from).to_vec();
    args.push(window_arg(window, grad_input));
    let unit = Unit::of(&[grad_output, places, grad_input]);
    let sizes = [grad_input.shape.c, grad_output.ld, places.ld, grad_input.ld];
    args.extend(sizes.map(|len| unit.int(len)));
    let adds = usize::from(update == Update::Add);
    args.push(int(adds));
    let count = unit.count(numbers(grad_input));
    let traffic = Traffic::default().reads(grad_output).reads(places).writes(grad_input);
    let traffic = if adds == 1 { traffic.reads(grad_input) } else { traffic };
    let kernel = unit.kernel("max_pool_backward", "max_pool_backward_wide");
    to.for_each(kernel, count, traffic, args);
}
