// A number for each channel, added to every pixel, with or without a ReLU after it; and its gradient.
//
// Occupancy: 50 % or more.

extern "C" __global__ void add_bias(Number* tensor, const float* bias, Matrix matrix, int relu, int count) {
    int index = item();
    if (index >= count) return;
    int channel = index % matrix.c;
    Number& to = tensor[index / matrix.c * matrix.ld + channel];
    float sum = value(to) + bias[channel];
    to = rounded(relu && !(sum > 0.0f) ? 0.0f : sum);
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

// One block for each channel.
extern "C" __global__ void __launch_bounds__(256) bias_backward(const Pair* sums, int blocks, float* grad_bias) {
    __shared__ Pair shared[THREADS];
    Pair all = sum_of_block(shared, sums + blockIdx.x * blocks, blocks);
    if (threadIdx.x == 0) grad_bias[blockIdx.x] = float(all.a);
}
