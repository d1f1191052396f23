//! The largest of each window; the first of equal ones wins.

use crate::device::memory::{Memory, rows_mut};
use crate::device::{Float, Tensor, Update, Window};

/// Calls `visit` with every place of every window that lies inside the image: the indices of the
/// output pixel, of the input pixel (n, y, x), and the place, row * kernel_size + column.
fn places(
    window: Window,
    input: Tensor,
    output: Tensor,
    mut visit: impl FnMut([usize; 3], [usize; 3], usize),
) {
    let Window { kernel_size, stride } = window;
    let (top, left) = (window.padding(input.shape.h), window.padding(input.shape.w));
    for n in 0..output.n {
        for oy in 0..output.shape.h {
            for ox in 0..output.shape.w {
                for place in 0..kernel_size * kernel_size {
                    let y = oy * stride + place / kernel_size;
                    let x = ox * stride + place % kernel_size;
                    let (Some(y), Some(x)) = (y.checked_sub(top), x.checked_sub(left)) else {
                        continue;
                    };
                    if y < input.shape.h && x < input.shape.w {
                        visit([n, oy, ox], [n, y, x], place);
                    }
                }
            }
        }
    }
}

pub(in crate::device) fn forward<T: Float>(
    memory: &mut Memory<T>,
    window: Window,
    input: Tensor,
    output: Tensor,
    to: Option<Tensor>,
) {
    let c = input.shape.c;
    let mut largest: Vec<Option<(T, usize)>> = vec![None; output.rows() * c];
    let pixels = Tensor { ld: c, ..output };
    let view = memory.view(input);
    places(window, input, output, |o, [n, y, x], place| {
        let largest = &mut largest[pixels.pixel(o)..][..c];
        for (largest, value) in largest.iter_mut().zip(view.pixel(n, y, x)) {
            if largest.is_none_or(|(other, _)| *value > other) {
                *largest = Some((*value, place));
            }
        }
    });
    let largest: Vec<(T, usize)> =
        largest.into_iter().map(|found| found.expect("a window holds a pixel")).collect();
    memory.write(output, |_, out| {
        for (out, largest) in rows_mut(out, output).flatten().zip(&largest) {
            *out = largest.0;
        }
    });
    if let Some(tensor) = to {
        memory.write(tensor, |_, out| {
            for (out, largest) in rows_mut(out, tensor).flatten().zip(&largest) {
                *out = T::from_f64(largest.1 as f64);
            }
        });
    }
}

pub(in crate::device) fn backward<T: Float>(
    memory: &mut Memory<T>,
    window: Window,
    from: Tensor,
    grad_output: Tensor,
    update: Update,
    grad_input: Tensor,
) {
    memory.write(grad_input, |memory, out| {
        if update == Update::Overwrite {
            rows_mut(out, grad_input).for_each(|row| row.fill(T::ZERO));
        }
        let (from, grad_output) = (memory.view(from), memory.view(grad_output));
        places(window, grad_input, grad_output.tensor, |[n, oy, ox], i, place| {
            let out = &mut out[grad_input.pixel(i)..][..grad_input.shape.c];
            let place = T::from_f64(place as f64);
            let grad = grad_output.pixel(n, oy, ox).iter().zip(from.pixel(n, oy, ox));
            for (out, (grad, from)) in out.iter_mut().zip(grad) {
                if *from == place {
                    *out += *grad;
                }
            }
        });
    });
}
