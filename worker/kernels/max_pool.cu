// The largest of each window; the first of equal ones wins. One thread for each number, or for 16 bytes.
//
// Occupancy: 50 % or more.

// Places of V: a byte for each number.
template <class V> struct Places { unsigned char at; };
template <> struct Places<Wide> { unsigned words[WIDE / 4]; };

__device__ __forceinline__ int place(Places<Number> places, int) { return places.at; }
__device__ __forceinline__ int place(Places<Wide> places, int i) { return places.words[i / 4] >> i % 4 * 8 & 0xffu; }

__device__ __forceinline__ void pack(const int (&from)[1], Places<Number>& to) { to.at = (unsigned char)from[0]; }
__device__ __forceinline__ void pack(const int (&from)[WIDE], Places<Wide>& to) {
    for (int word = 0; word < WIDE / 4; word++) {
        unsigned all = 0;
        for (int i = 0; i < 4; i++) all |= unsigned(from[4 * word + i]) << 8 * i;
        to.words[word] = all;
    }
}

// K is the kernel size if it is known.
template <int K, class V>
__device__ void largest(const V* __restrict__ input, V* __restrict__ output, Places<V>* __restrict__ places, Window window, int c,
                        int in_ld, int out_ld, int places_ld, int count) {
    int index = item();
    if (index >= count) return;
    int channel = index % c, row = index / c;
    int ox = row % window.out_w, rest = row / window.out_w;
    int oy = rest % window.out_h, n = rest / window.out_h;
    int k = K ? K : window.kernel_size;
    int top = oy * window.stride - window.top, left = ox * window.stride - window.left;
    const V* from = input + (((n * window.h + top) * window.w + left) * in_ld + channel);
    float best[Width<V>::of] = {}, seen[Width<V>::of];
    int found[Width<V>::of];
    bool is_first = true;
    constexpr int AT_ONCE = K ? K : 1;
#pragma unroll
    for (int ky = 0; ky < k; ky++)
        for (int first = 0; first < k; first += AT_ONCE) {
            V read[AT_ONCE];
            bool is_inside[AT_ONCE];
#pragma unroll
            for (int i = 0; i < AT_ONCE; i++) {
                int y = top + ky, x = left + first + i;
                is_inside[i] = y >= 0 && y < window.h && x >= 0 && x < window.w;
                read[i] = is_inside[i] ? from[(ky * window.w + first + i) * in_ld] : V{};
            }
#pragma unroll
            for (int i = 0; i < AT_ONCE; i++) {
                if (!is_inside[i]) continue;
                unpack(read[i], seen);
                for (int at = 0; at < Width<V>::of; at++) {
                    bool is_larger = is_first || seen[at] > best[at];
                    best[at] = is_larger ? seen[at] : best[at];
                    found[at] = is_larger ? ky * k + first + i : found[at];
                }
                is_first = false;
            }
        }
    pack(best, output[row * out_ld + channel]);
    if (places) pack(found, places[row * places_ld + channel]);
}

// output and places (n, out_h, out_w, c); a place is row * kernel_size + column. `places` may be null.
extern "C" __global__ void __launch_bounds__(256)
max_pool_forward(const Number* input, Number* output, Places<Number>* places, Window window, int c, int in_ld, int out_ld,
                 int places_ld, int count) {
    largest<0>(input, output, places, window, c, in_ld, out_ld, places_ld, count);
}

extern "C" __global__ void __launch_bounds__(256)
max_pool_forward_wide(const Wide* input, Wide* output, Places<Wide>* places, Window window, int c, int in_ld, int out_ld,
                      int places_ld, int count) {
    if (window.kernel_size == 3) largest<3>(input, output, places, window, c, in_ld, out_ld, places_ld, count);
    else largest<0>(input, output, places, window, c, in_ld, out_ld, places_ld, count);
}

// Each pixel asks the windows that see it. Kernel size K and stride S, if they are known.
template <int K, int S, class V>
__device__ void ask(const V* __restrict__ grad_output, const Places<V>* __restrict__ places, V* __restrict__ grad_input,
                    Window window, int c, int out_ld, int places_ld, int in_ld, int adds, int count) {
    int index = item();
    if (index >= count) return;
    int channel = index % c, pixel = index / c;
    int x = pixel % window.w, rest = pixel / window.w;
    int y = rest % window.h, n = rest / window.h;
    int k = K ? K : window.kernel_size, stride = S ? S : window.stride;
    int windows = (k + stride - 1) / stride;
    constexpr int AT_ONCE = K ? (K + S - 1) / S : 1;
    int bottom = y + window.top, right = x + window.left;
    int first_oy = first_place(bottom, k, stride), first_ox = first_place(right, k, stride);
    V* to = grad_input + (pixel * in_ld + channel);
    float sums[Width<V>::of] = {}, seen[Width<V>::of];
    if (adds) unpack(*to, sums);
#pragma unroll
    for (int i = 0; i < windows; i++)
        for (int first = 0; first < windows; first += AT_ONCE) {
            int oy = first_oy + i;
            V read[AT_ONCE];
            Places<V> chosen[AT_ONCE];
            // No place is -1.
            int here[AT_ONCE];
#pragma unroll
            for (int j = 0; j < AT_ONCE; j++) {
                int ox = first_ox + first + j, row = (n * window.out_h + oy) * window.out_w + ox;
                bool sees = oy < window.out_h && oy * stride <= bottom && ox < window.out_w && ox * stride <= right;
                here[j] = sees ? (bottom - oy * stride) * k + right - ox * stride : -1;
                chosen[j] = sees ? places[row * places_ld + channel] : Places<V>{};
                read[j] = sees ? grad_output[row * out_ld + channel] : V{};
            }
#pragma unroll
            for (int j = 0; j < AT_ONCE; j++) {
                unpack(read[j], seen);
                for (int at = 0; at < Width<V>::of; at++)
                    if (place(chosen[j], at) == here[j]) sums[at] += seen[at];
            }
        }
    pack(sums, *to);
}

// grad_input (n, h, w, c), overwritten or added to.
extern "C" __global__ void __launch_bounds__(256)
max_pool_backward(const Number* grad_output, const Places<Number>* places, Number* grad_input, Window window, int c, int out_ld,
                  int places_ld, int in_ld, int adds, int count) {
    ask<0, 0>(grad_output, places, grad_input, window, c, out_ld, places_ld, in_ld, adds, count);
}

extern "C" __global__ void __launch_bounds__(256)
max_pool_backward_wide(const Wide* grad_output, const Places<Wide>* places, Wide* grad_input, Window window, int c, int out_ld,
                       int places_ld, int in_ld, int adds, int count) {
    if (window.kernel_size == 3 && window.stride == 1)
        ask<3, 1>(grad_output, places, grad_input, window, c, out_ld, places_ld, in_ld, adds, count);
    else if (window.kernel_size == 3 && window.stride == 2)
        ask<3, 2>(grad_output, places, grad_input, window, c, out_ld, places_ld, in_ld, adds, count);
    else
        ask<0, 0>(grad_output, places, grad_input, window, c, out_ld, places_ld, in_ld, adds, count);
}
