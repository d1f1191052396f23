// The way back from columns to an image: each pixel gathers what the windows that see it hold for it,
// in the order of their places. No atomics.
//
// One thread makes V numbers of one pixel: 4 where channels, leading dimension and address allow it.
//
// Occupancy: 75 % or more.

__device__ __forceinline__ void accumulate(float& sum, float value) { sum += value; }
__device__ __forceinline__ void accumulate(float4& sum, float4 value) {
    sum.x += value.x;
    sum.y += value.y;
    sum.z += value.z;
    sum.w += value.w;
}

template <class V>
__device__ void gather(const V* columns, V* output, Window window, int c, int ld, int adds, int count) {
    int index = item();
    if (index >= count) return;
    int channel = index % c, pixel = index / c;
    int x = pixel % window.w, rest = pixel / window.w;
    int y = rest % window.h, n = rest / window.h;
    int k = window.kernel_size, stride = window.stride;
    V sum = V{};
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
    *to = sum;
}

// columns (n * out_h * out_w, k, k, c); output (n, h, w, c), overwritten or added to; `count` numbers of it.
extern "C" __global__ void col2im_1(const float* columns, float* output, Window window, int c, int ld, int adds,
                                    int count) {
    gather(columns, output, window, c, ld, adds, count);
}

// The same in fours: c, ld and count are a quarter of theirs.
extern "C" __global__ void col2im_4(const float4* columns, float4* output, Window window, int c, int ld, int adds,
                                    int count) {
    gather(columns, output, window, c, ld, adds, count);
}
