// The way back from columns to an image: each pixel gathers what the windows that see it hold for it,
// in the order of their places. No atomics.
//
// One thread makes V numbers of one pixel: 4 where channels, leading dimension and address allow it.
//
// Occupancy: 75 % or more.

struct Sum1 { float at; };
struct Sum4 { float at[4]; };

__device__ __forceinline__ void accumulate(Sum1& sum, Number number) { sum.at += value(number); }
__device__ __forceinline__ void accumulate(Sum4& sum, Four numbers) {
    for (int i = 0; i < 4; i++) sum.at[i] += value(numbers.at[i]);
}
__device__ __forceinline__ void write(Number& to, Sum1 sum) { to = rounded(sum.at); }
__device__ __forceinline__ void write(Four& to, Sum4 sum) {
    to = Four{rounded(sum.at[0]), rounded(sum.at[1]), rounded(sum.at[2]), rounded(sum.at[3])};
}

template <class Sum, class V>
__device__ void gather(const V* columns, V* output, Window window, int c, int ld, int adds, int count) {
    int index = item();
    if (index >= count) return;
    int channel = index % c, pixel = index / c;
    int x = pixel % window.w, rest = pixel / window.w;
    int y = rest % window.h, n = rest / window.h;
    int k = window.kernel_size, stride = window.stride;
    Sum sum = Sum{};
    // Windows (oy, ox) with oy * stride <= y + top < oy * stride + k.
    int bottom = y + window.top, right = x + window.left;
    int first_oy = first_place(bottom, window), first_ox = first_place(right, window);
    for (int oy = first_oy; oy < window.out_h && oy * stride <= bottom; oy++)
        for (int ox = first_ox; ox < window.out_w && ox * stride <= right; ox++) {
            int tap = (bottom - oy * stride) * k + right - ox * stride;
            int row = (n * window.out_h + oy) * window.out_w + ox;
            accumulate(sum, columns[(row * k * k + tap) * c + channel]);
        }
    V* to = output + (pixel * ld + channel);
    if (adds) accumulate(sum, *to);
    write(*to, sum);
}

// columns (n * out_h * out_w, k, k, c); output (n, h, w, c), overwritten or added to; `count` numbers of it.
extern "C" __global__ void col2im_1(const Number* columns, Number* output, Window window, int c, int ld, int adds,
                                    int count) {
    gather<Sum1>(columns, output, window, c, ld, adds, count);
}

// The same in fours: c, ld and count are a quarter of theirs.
extern "C" __global__ void col2im_4(const Four* columns, Four* output, Window window, int c, int ld, int adds,
                                    int count) {
    gather<Sum4>(columns, output, window, c, ld, adds, count);
}
