// The way back from columns to an image: each pixel gathers what the windows that see it hold for it,
// in the order of their places. No atomics.
//
// Occupancy: 50 % or more.

// Kernel size K and stride S, if they are known. Rows of columns are `row` V apart.
template <int K, int S, class V>
__device__ void gather(const V* columns, V* output, Window window, int c, int ld, int row, int adds, int count) {
    int index = item();
    if (index >= count) return;
    int channel = index % c, pixel = index / c;
    int x = pixel % window.w, rest = pixel / window.w;
    int y = rest % window.h, n = rest / window.h;
    int k = K ? K : window.kernel_size, stride = S ? S : window.stride;
    int windows = (k + stride - 1) / stride;
    constexpr int AT_ONCE = K ? (K + S - 1) / S : 1;
    float sums[Width<V>::of] = {}, seen[Width<V>::of];
    // Windows (oy, ox) with oy * stride <= y + top < oy * stride + k.
    int bottom = y + window.top, right = x + window.left;
    int first_oy = first_place(bottom, k, stride), first_ox = first_place(right, k, stride);
#pragma unroll
    for (int i = 0; i < windows; i++)
        for (int first = 0; first < windows; first += AT_ONCE) {
            int oy = first_oy + i;
            V read[AT_ONCE];
#pragma unroll
            for (int j = 0; j < AT_ONCE; j++) {
                int ox = first_ox + first + j;
                bool sees = oy < window.out_h && oy * stride <= bottom && ox < window.out_w && ox * stride <= right;
                int tap = (bottom - oy * stride) * k + right - ox * stride;
                int at = ((n * window.out_h + oy) * window.out_w + ox) * row + tap * c + channel;
                read[j] = sees ? columns[at] : V{};
            }
#pragma unroll
            for (int j = 0; j < AT_ONCE; j++) {
                unpack(read[j], seen);
                for (int at = 0; at < Width<V>::of; at++) sums[at] += seen[at];
            }
        }
    V* to = output + (pixel * ld + channel);
    if (adds) {
        unpack(*to, seen);
        for (int at = 0; at < Width<V>::of; at++) sums[at] += seen[at];
    }
    pack(sums, *to);
}

// columns (n * out_h * out_w, k, k, c); output (n, h, w, c), overwritten or added to; `count` numbers of it.
extern "C" __global__ void __launch_bounds__(256) col2im(const Number* columns, Number* output, Window window, int c, int ld,
                                                         int row, int adds, int count) {
    gather<0, 0>(columns, output, window, c, ld, row, adds, count);
}

extern "C" __global__ void __launch_bounds__(256) col2im_wide(const Wide* columns, Wide* output, Window window, int c, int ld,
                                                              int row, int adds, int count) {
    if (window.kernel_size == 3 && window.stride == 1) gather<3, 1>(columns, output, window, c, ld, row, adds, count);
    else if (window.kernel_size == 3 && window.stride == 2) gather<3, 2>(columns, output, window, c, ld, row, adds, count);
    else gather<0, 0>(columns, output, window, c, ld, row, adds, count);
}
