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

// To nearest, side by side in a word.
#ifdef BF16
__device__ __forceinline__ unsigned rounded(float low, float high) {
#if defined(__CUDACC_RTC__) && __CUDA_ARCH__ >= 800
    unsigned both;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    return both;
#else
    return rounded(low).bits | unsigned(rounded(high).bits) << 16;
#endif
}
#endif

// What a thread moves at once where channels, leading dimension and address allow it: 16 bytes. A kernel
// that is written for a type V takes either a Number or a Wide; its c, ld and count are in units of V.
constexpr int WIDE = 16 / sizeof(Number);
struct alignas(16) Wide { unsigned words[4]; };

template <class V> struct Width { static constexpr int of = 1; };
template <> struct Width<Wide> { static constexpr int of = WIDE; };

__device__ __forceinline__ void unpack(Number from, float (&to)[1]) { to[0] = value(from); }
__device__ __forceinline__ void pack(const float (&from)[1], Number& to) { to = rounded(from[0]); }

__device__ __forceinline__ void unpack(Wide from, float (&to)[WIDE]) {
#ifdef BF16
    for (int i = 0; i < 4; i++) {
        to[2 * i] = __uint_as_float(from.words[i] << 16);
        to[2 * i + 1] = __uint_as_float(from.words[i] & 0xffff0000u);
    }
#else
    for (int i = 0; i < 4; i++) to[i] = __uint_as_float(from.words[i]);
#endif
}

__device__ __forceinline__ void pack(const float (&from)[WIDE], Wide& to) {
#ifdef BF16
    for (int i = 0; i < 4; i++) to.words[i] = rounded(from[2 * i], from[2 * i + 1]);
#else
    for (int i = 0; i < 4; i++) to.words[i] = __float_as_uint(from[i]);
#endif
}

// Pixels of all images, channels, and numbers from one pixel to the next.
struct Matrix { int rows, c, ld; };
// What slides over an image of h x w, with padding SAME, and how many places it finds.
struct Window { int kernel_size, stride, top, left, h, w, out_h, out_w; };

// The first place of a window that sees a pixel `edge` from where the padding begins.
__device__ __forceinline__ int first_place(int edge, int kernel_size, int stride) {
    return edge < kernel_size ? 0 : (edge - kernel_size) / stride + 1;
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

// A column reduction over Wides: a block of 8 lanes x 32 rows sums `rows` rows, of which it takes 32 at once.
constexpr int WIDE_LANES = 8;
constexpr int WIDE_ROWS = THREADS / WIDE_LANES;
constexpr int WIDE_CHANNELS = WIDE_LANES * WIDE;
constexpr int WARPS = THREADS / 32;
// Rows that a thread reads before it computes.
constexpr int AHEAD = 4;

__device__ __forceinline__ int thread_of_block() { return threadIdx.y * WIDE_LANES + threadIdx.x; }

// The sums of two numbers for each of a lane's channels over a block's rows: the first WIDE_CHANNELS threads
// have one channel each. A thread's own sum is short enough for f32.
__device__ Pair sum_of_rows(Pair (*shared)[WIDE_CHANNELS], const float (&a)[WIDE], const float (&b)[WIDE]) {
    int thread = thread_of_block();
    for (int i = 0; i < WIDE; i++) {
        Pair mine = {a[i], b[i]};
        for (int lanes = WIDE_LANES; lanes < 32; lanes *= 2) {
            double other_a = __shfl_xor_sync(0xffffffffu, mine.a, lanes);
            double other_b = __shfl_xor_sync(0xffffffffu, mine.b, lanes);
            mine = add(mine, Pair{other_a, other_b});
        }
        if (thread % 32 < WIDE_LANES) shared[thread / 32][threadIdx.x * WIDE + i] = mine;
    }
    __syncthreads();
    Pair all = {0.0, 0.0};
    if (thread < WIDE_CHANNELS)
        for (int warp = 0; warp < WARPS; warp++) all = add(all, shared[warp][thread]);
    return all;
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
