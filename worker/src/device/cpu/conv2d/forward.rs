//! output = epilogue(input * weight).

use rayon::prelude::*;

use super::{Piece, pieces, windows};
use crate::device::cpu::Team;
use crate::device::cpu::moments;
use crate::device::cpu::panels::Panels;
use crate::device::cpu::scratch::{self, cut};
use crate::device::cpu::simd::{Grid, Start, Steps, StripProduct};
use crate::device::memory::Memory;
use crate::device::{Epilogue, Span, Tensor, Window};

/// About how many pixels a strip has. A constant, because moments are made strip by strip.
const STRIP_PIXELS: usize = 128;

pub(in crate::device::cpu) fn forward(
    memory: &mut Memory<f32>,
    team: &mut Team,
    window: Window,
    input: Tensor,
    weight: Span,
    epilogue: Epilogue,
    output: Tensor,
) {
    let (simd, co, cols) = (team.simd, output.shape.c, output.shape.w);
    let depth = window.kernel_size * window.kernel_size * input.shape.c;
    let layout = Panels { depth, columns: co, width: simd.panel_width() };
    let panels = cut(&mut team.panels, layout.len());
    let mut bias = vec![0.0; layout.columns.next_multiple_of(layout.width)];
    let (mean, var) = memory.write(output, |memory, out| {
        let (input, weight) = (memory.view(input), memory.span(weight));
        layout.pack_rows(panels, |k| &weight[k * co..]);
        let start = match epilogue {
            Epilogue::None | Epilogue::Moments { .. } => Start::Zero,
            Epilogue::Bias(span) | Epilogue::BiasRelu(span) => {
                bias[..co].copy_from_slice(memory.span(span));
                Start::Bias(&bias)
            }
        };
        let target = Steps { start: 0, row: cols * output.ld, col: output.ld };
        let convolve = |Piece { n, rows, values }: Piece<'_>, moments: &mut [f32]| {
            scratch::with(|scratch| {
                let windows = windows(window, input, n, rows.clone(), cols, &mut scratch.strip);
                simd.product(StripProduct {
                    source: windows.source,
                    runs: windows.runs,
                    grid: Grid { rows: rows.len(), cols, source: windows.steps, target },
                    panels,
                    columns: co,
                    start,
                    relu: matches!(epilogue, Epilogue::BiasRelu(_)),
                    target: values,
                });
            });
            if let Epilogue::Moments { .. } = epilogue {
                simd.run(
                    #[inline(always)]
                    || moments::of_rows(values, output, moments),
                );
            }
        };
        let pieces = pieces(out, output, STRIP_PIXELS);
        let counts: Vec<usize> = pieces.iter().map(|piece| piece.rows.len() * cols).collect();
        let partials = cut(&mut team.partials, counts.len() * 2 * co);
        team.pool.install(|| {
            let partials = partials.par_chunks_mut(2 * co);
            pieces.into_par_iter().zip(partials).for_each(|(piece, moments)| {
                convolve(piece, moments);
            });
        });
        moments::combine(&counts, partials, co)
    });
    if let Epilogue::Moments { mean: mean_to, var: var_to } = epilogue {
        memory.span_mut(mean_to).copy_from_slice(&mean);
        memory.span_mut(var_to).copy_from_slice(&var);
    }
}
