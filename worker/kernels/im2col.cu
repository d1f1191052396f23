// Spreads an image so that a convolution is a matrix product: row (n, oy, ox) of the columns holds
// what the window sees there, (ky, kx, c); zeros where it sees padding.
//
// One thread writes V numbers of one row: 4 where channels, leading dimension and address allow it.
// Neighbouring threads write neighbouring numbers.
//
// Occupancy: 75 % or more.

template <class V>
__device__ void spread(const V* input, V* columns, Window window, int c, int ld, int count) {
    int index = item();
    if (index >= count) return;
    int channel = index % c, place = index / c;
    int taps = window.kernel_size * window.kernel_size;
    int tap = place % taps, row = place / taps;
    int ox = row % window.out_w, rest = row / window.out_w;
    int oy = rest % window.out_h, n = rest / window.out_h;
    int y = oy * window.stride + tap / window.kernel_size - window.top;
    int x = ox * window.stride + tap % window.kernel_size - window.left;
    bool is_inside = y >= 0 && y < window.h && x >= 0 && x < window.w;
    columns[index] = is_inside ? input[((n * window.h + y) * window.w + x) * ld + channel] : V{};
}

// input (n, h, w, c); columns (n * out_h * out_w, k, k, c); `count` numbers of columns.
extern "C" __global__ void im2col_1(const Number* input, Number* columns, Window window, int c, int ld, int count) {
    spread(input, columns, window, c, ld, count);
}

// The same in fours: c, ld and count are a quarter of theirs.
extern "C" __global__ void im2col_4(const Four* input, Four* columns, Window window, int c, int ld, int count) {
    spread(input, columns, window, c, ld, count);
}
