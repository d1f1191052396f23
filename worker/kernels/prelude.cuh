// Before every kernel: numbers, sizes, which travel by value, and what several kernels share.
//
// An activation (n, h, w, c) is a matrix of pixels: element (row, channel) lies at row * ld + channel,
// row = (n * h + y) * w + x. Indices of one tensor are ints.

// What activations and their gradients lie in memory as: bfloat16 if BF16 is defined, else f32.
#ifdef BF16
struct Number { unsigned short bits; };

__device__ __forceinline__ float value(Number number) { return __uint_as_float(unsigned(number.bits) << 16); }

// To nearest, of two to the even one. A NaN stays one.
__device__ __forceinline__ Number rounded(float value) {
    unsigned bits = __float_as_uint(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return Number{(unsigned short)(bits >> 16 | 0x40u)};
    return Number{(unsigned short)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16)};
}
#else
typedef float Number;

__device__ __forceinline__ float rounded(float value) { return value; }
#endif

__device__ __forceinline__ float value(float number) { return number; }

// Four that are read or written at once.
struct alignas(4 * sizeof(Number)) Four { Number at[4]; };

// Pixels of all images, channels, and numbers from one pixel to the next.
struct Matrix { int rows, c, ld; };
// What slides over an image of h x w, with padding SAME, and how many places it finds.
struct Window { int kernel_size, stride, top, left, h, w, out_h, out_w; };

// The first place of a window that sees a pixel `edge` from where the padding begins.
__device__ __forceinline__ int first_place(int edge, Window window) {
    return edge < window.kernel_size ? 0 : (edge - window.kernel_size) / window.stride + 1;
}

constexpr int THREADS = 256;
// A column reduction: a block of 32 channels x 8 row lanes sums ROWS_PER_BLOCK rows.
constexpr int LANES = 32;
constexpr int ROW_LANES = 8;
constexpr int ROWS_PER_BLOCK = 256;

__device__ __forceinline__ int item() { return blockIdx.x * THREADS + threadIdx.x; }

// Two sums made side by side.
struct Pair { double a, b; };

__device__ __forceinline__ Pair add(Pair x, Pair y) { return Pair{x.a + y.a, x.b + y.b}; }

// The sum over a block's row lanes for each channel, in the threads of the first lane. The order of
// the additions depends on nothing.
__device__ Pair sum_of_lanes(Pair* shared, Pair mine) {
    shared[threadIdx.y * LANES + threadIdx.x] = mine;
    __syncthreads();
    for (unsigned half = ROW_LANES / 2; half > 0; half /= 2) {
        if (threadIdx.y < half) {
            int at = threadIdx.y * LANES + threadIdx.x;
            shared[at] = add(shared[at], shared[at + half * LANES]);
        }
        __syncthreads();
    }
    return shared[threadIdx.x];
}

// The sum of one pair for each of a block's THREADS, in every one of them.
__device__ Pair sum_of_threads(Pair* shared, Pair mine) {
    shared[threadIdx.x] = mine;
    __syncthreads();
    for (unsigned half = THREADS / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) shared[threadIdx.x] = add(shared[threadIdx.x], shared[threadIdx.x + half]);
        __syncthreads();
    }
    return shared[0];
}

// The sum of `count` pairs by one block of THREADS, in every one of its threads.
__device__ Pair sum_of_block(Pair* shared, const Pair* pairs, int count) {
    Pair mine = {0.0, 0.0};
    for (int i = threadIdx.x; i < count; i += THREADS) mine = add(mine, pairs[i]);
    return sum_of_threads(shared, mine);
}
