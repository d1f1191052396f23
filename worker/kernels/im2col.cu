// Spreads an image so that a convolution is a matrix product: row (n, oy, ox) of the columns holds
// what the window sees there, (ky, kx, c); zeros where it sees padding.
//
// Occupancy: 50 % or more.

// A thread makes all of a row that lies in 16 bytes of channels. K is the kernel size if it is known.
template <int K>
__device__ void spread(const Wide* __restrict__ input, Wide* __restrict__ columns, Window window, int c, int ld, int count) {
    int index = item();
    if (index >= count) return;
    int channel = index % c, row = index / c;
    int ox = row % window.out_w, rest = row / window.out_w;
    int oy = rest % window.out_h, n = rest / window.out_h;
    int k = K ? K : window.kernel_size;
    int top = oy * window.stride - window.top, left = ox * window.stride - window.left;
    const Wide* from = input + (((n * window.h + top) * window.w + left) * ld + channel);
    Wide* to = columns + (row * k * k * c + channel);
    constexpr int AT_ONCE = K ? K : 1;
#pragma unroll
    for (int ky = 0; ky < k; ky++)
        for (int first = 0; first < k; first += AT_ONCE) {
            Wide read[AT_ONCE];
#pragma unroll
            for (int i = 0; i < AT_ONCE; i++) {
                int y = top + ky, x = left + first + i;
                bool is_inside = y >= 0 && y < window.h && x >= 0 && x < window.w;
                read[i] = is_inside ? from[(ky * window.w + first + i) * ld] : Wide{};
            }
#pragma unroll
            for (int i = 0; i < AT_ONCE; i++) to[(ky * k + first + i) * c] = read[i];
        }
}

// input (n, h, w, c); columns (n * out_h * out_w, k, k, c); `count` Wides of pixels (n * out_h * out_w, c).
extern "C" __global__ void __launch_bounds__(256) im2col_wide(const Wide* input, Wide* columns, Window window, int c, int ld,
                                                              int count) {
    if (window.kernel_size == 3) spread<3>(input, columns, window, c, ld, count);
    else spread<0>(input, columns, window, c, ld, count);
}

// For any number of channels. Rows of columns are filled up with zeros to `row_wides` Wides, of which a
// thread makes one; `count` of them in all.
extern "C" __global__ void __launch_bounds__(256) im2col(const Number* input, Wide* columns, Window window, int c, int ld,
                                                         int row_wides, int count) {
    int index = item();
    if (index >= count) return;
    int row = index / row_wides, first = index % row_wides * WIDE;
    int ox = row % window.out_w, rest = row / window.out_w;
    int oy = rest % window.out_h, n = rest / window.out_h;
    int k = window.kernel_size;
    int ky = first / (k * c), kx = first / c % k, channel = first % c;
    int top = oy * window.stride - window.top, left = ox * window.stride - window.left;
    float numbers[WIDE];
    for (int i = 0; i < WIDE; i++) {
        int y = top + ky, x = left + kx;
        bool is_inside = ky < k && y >= 0 && y < window.h && x >= 0 && x < window.w;
        numbers[i] = is_inside ? value(input[((n * window.h + y) * window.w + x) * ld + channel]) : 0.0f;
        if (++channel == c) channel = 0, kx++;
        if (kx == k) kx = 0, ky++;
    }
    pack(numbers, columns[index]);
}
