// A number for each channel, added to every pixel, with or without a ReLU after it; and its gradient.
//
// Occupancy: 50 % or more.

template <class V>
__device__ void shift(V* tensor, const float* bias, Matrix matrix, int relu, int count) {
    constexpr int W = Width<V>::of;
    int index = item();
    if (index >= count) return;
    int channel = index % matrix.c;
    V& to = tensor[index / matrix.c * matrix.ld + channel];
    float sums[W];
    unpack(to, sums);
    for (int i = 0; i < W; i++) {
        sums[i] += bias[channel * W + i];
        if (relu && !(sums[i] > 0.0f)) sums[i] = 0.0f;
    }
    pack(sums, to);
}

extern "C" __global__ void add_bias(Number* tensor, const float* bias, Matrix matrix, int relu, int count) {
    shift(tensor, bias, matrix, relu, count);
}

extern "C" __global__ void add_bias_wide(Wide* tensor, const float* bias, Matrix matrix, int relu, int count) {
    shift(tensor, bias, matrix, relu, count);
}

// The same for logits, which are f32 always.
extern "C" __global__ void add_bias_full(float* tensor, const float* bias, Matrix matrix, int count) {
    int index = item();
    if (index >= count) return;
    int channel = index % matrix.c;
    tensor[index / matrix.c * matrix.ld + channel] += bias[channel];
}

// sums (c, blocks) of grad over each block of rows.
extern "C" __global__ void __launch_bounds__(256) bias_of_blocks(const Number* grad, Pair* sums, Matrix matrix) {
    __shared__ Pair shared[LANES * ROW_LANES];
    int channel = blockIdx.y * LANES + threadIdx.x;
    int first = blockIdx.x * ROWS_PER_BLOCK, end = min(first + ROWS_PER_BLOCK, matrix.rows);
    Pair mine = {0.0, 0.0};
    if (channel < matrix.c)
        for (int row = first + threadIdx.y; row < end; row += ROW_LANES) mine.a += value(grad[row * matrix.ld + channel]);
    Pair all = sum_of_lanes(shared, mine);
    if (threadIdx.y == 0 && channel < matrix.c) sums[channel * gridDim.x + blockIdx.x] = all;
}

extern "C" __global__ void __launch_bounds__(256) bias_of_blocks_wide(const Wide* grad, Pair* sums, Matrix matrix, int rows) {
    __shared__ Pair shared[WARPS][WIDE_CHANNELS];
    int channel = blockIdx.y * WIDE_LANES + threadIdx.x;
    int first = blockIdx.x * rows, end = min(first + rows, matrix.rows);
    float mine[WIDE] = {}, none[WIDE] = {}, seen[WIDE];
    if (channel < matrix.c)
        for (int row = first + threadIdx.y; row < end; row += AHEAD * WIDE_ROWS) {
            Wide read[AHEAD] = {};
#pragma unroll
            for (int i = 0; i < AHEAD; i++)
                if (row + i * WIDE_ROWS < end) read[i] = grad[(row + i * WIDE_ROWS) * matrix.ld + channel];
#pragma unroll
            for (int i = 0; i < AHEAD; i++) {
                unpack(read[i], seen);
                for (int at = 0; at < WIDE; at++) mine[at] += seen[at];
            }
        }
    Pair all = sum_of_rows(shared, mine, none);
    int at = blockIdx.y * WIDE_CHANNELS + thread_of_block();
    if (thread_of_block() < WIDE_CHANNELS && at < matrix.c * WIDE) sums[at * gridDim.x + blockIdx.x] = all;
}

// One block for each channel.
extern "C" __global__ void __launch_bounds__(256) bias_backward(const Pair* sums, int blocks, float* grad_bias) {
    __shared__ Pair shared[THREADS];
    Pair all = sum_of_block(shared, sums + blockIdx.x * blocks, blocks);
    if (threadIdx.x == 0) grad_bias[blockIdx.x] = float(all.a);
}
