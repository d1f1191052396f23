//! The source of all kernels as one program.

use crate::device::Format;

/// Name and text of each file, in the order in which they are compiled.
pub(super) const FILES: [(&str, &str); 13] = [
    ("prelude.cuh", include_str!("../../../kernels/prelude.cuh")),
    ("augment.cu", include_str!("../../../kernels/augment.cu")),
    ("im2col.cu", include_str!("../../../kernels/im2col.cu")),
    ("col2im.cu", include_str!("../../../kernels/col2im.cu")),
    ("moments.cu", include_str!("../../../kernels/moments.cu")),
    ("batch_norm.cu", include_str!("../../../kernels/batch_norm.cu")),
    ("max_pool.cu", include_str!("../../../kernels/max_pool.cu")),
    ("bias.cu", include_str!("../../../kernels/bias.cu")),
    ("relu.cu", include_str!("../../../kernels/relu.cu")),
    ("dropout.cu", include_str!("../../../kernels/dropout.cu")),
    ("softmax_cross_entropy.cu", include_str!("../../../kernels/softmax_cross_entropy.cu")),
    ("cast.cu", include_str!("../../../kernels/cast.cu")),
    ("weight_decay.cu", include_str!("../../../kernels/weight_decay.cu")),
];

/// All files one after the other, for activations in `format`; an error of the compiler names file
/// and line.
pub(super) fn source(format: Format) -> String {
    let define = if format == Format::Bf16 { "#define BF16\n" } else { "" };
    let files = FILES.iter().map(|(name, text)| format!("#line 1 \"{name}\"\n{text}\n"));
    std::iter::once(define.to_owned()).chain(files).collect()
}
