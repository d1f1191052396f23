// Mean and biased variance of each channel.
//
// Sums of x and of x * x in f64, where the product of two f32 is exact: good to seven digits while the
// mean is below some thousand standard deviations. A fixed tree: lanes, blocks, then all blocks.
//
// Occupancy: 50 % or more.

// sums (c, blocks), one pair for each block of rows.
extern "C" __global__ void __launch_bounds__(256) moments_of_blocks(const Number* input, Pair* sums, Matrix matrix) {
    __shared__ Pair shared[LANES * ROW_LANES];
    int channel = blockIdx.y * LANES + threadIdx.x;
    int first = blockIdx.x * ROWS_PER_BLOCK, end = min(first + ROWS_PER_BLOCK, matrix.rows);
    Pair mine = {0.0, 0.0};
    if (channel < matrix.c)
        for (int row = first + threadIdx.y; row < end; row += ROW_LANES) {
            double x = value(input[row * matrix.ld + channel]);
            mine = add(mine, Pair{x, x * x});
        }
    Pair all = sum_of_lanes(shared, mine);
    if (threadIdx.y == 0 && channel < matrix.c) sums[channel * gridDim.x + blockIdx.x] = all;
}

// The same over many rows, 16 bytes at a time. A thread sums the distances from the channel's first number,
// and their squares, in f32: what that loses is small beside the variance, whatever the mean is, unless that
// number lies far from all others.
extern "C" __global__ void __launch_bounds__(256) moments_of_blocks_wide(const Wide* input, Pair* sums, Matrix matrix, int rows) {
    __shared__ Pair shared[WARPS][WIDE_CHANNELS];
    __shared__ float origins[WIDE_CHANNELS];
    int channel = blockIdx.y * WIDE_LANES + threadIdx.x, thread = thread_of_block();
    int first = blockIdx.x * rows, end = min(first + rows, matrix.rows);
    float origin[WIDE] = {}, seen[WIDE], mine[WIDE] = {}, squares[WIDE] = {};
    if (channel < matrix.c) {
        unpack(input[channel], origin);
        for (int row = first + threadIdx.y; row < end; row += AHEAD * WIDE_ROWS) {
            Wide read[AHEAD] = {};
#pragma unroll
            for (int i = 0; i < AHEAD; i++)
                if (row + i * WIDE_ROWS < end) read[i] = input[(row + i * WIDE_ROWS) * matrix.ld + channel];
#pragma unroll
            for (int i = 0; i < AHEAD; i++) {
                if (row + i * WIDE_ROWS >= end) break;
                unpack(read[i], seen);
                for (int at = 0; at < WIDE; at++) {
                    float distance = seen[at] - origin[at];
                    mine[at] += distance;
                    squares[at] += distance * distance;
                }
            }
        }
    }
    if (threadIdx.y == 0)
        for (int at = 0; at < WIDE; at++) origins[threadIdx.x * WIDE + at] = origin[at];
    Pair all = sum_of_rows(shared, mine, squares);
    int at = blockIdx.y * WIDE_CHANNELS + thread;
    if (thread >= WIDE_CHANNELS || at >= matrix.c * WIDE) return;
    double from = origins[thread], count = end - first;
    sums[at * gridDim.x + blockIdx.x] = Pair{all.a + count * from, all.b + 2.0 * from * all.a + count * from * from};
}

// One block for each channel.
extern "C" __global__ void __launch_bounds__(256) moments(const Pair* sums, int blocks, int rows, float* mean, float* var) {
    __shared__ Pair shared[THREADS];
    int channel = blockIdx.x;
    Pair all = sum_of_block(shared, sums + channel * blocks, blocks);
    if (threadIdx.x == 0) {
        double m = all.a / rows, v = all.b / rows - m * m;
        mean[channel] = float(m);
        var[channel] = float(v > 0.0 ? v : 0.0);
    }
}

// The same for backward over few rows, which needs all digits: mean and 1 / sqrt(var + epsilon).
extern "C" __global__ void __launch_bounds__(256) moments_exact(const Pair* sums, int blocks, int rows, double epsilon,
                                                                Pair* out) {
    __shared__ Pair shared[THREADS];
    int channel = blockIdx.x;
    Pair all = sum_of_block(shared, sums + channel * blocks, blocks);
    if (threadIdx.x == 0) {
        double m = all.a / rows, v = all.b / rows - m * m;
        out[channel] = Pair{m, 1.0 / sqrt((v > 0.0 ? v : 0.0) + epsilon)};
    }
}
