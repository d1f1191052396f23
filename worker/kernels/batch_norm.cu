// Batch normalisation with the ReLU that follows it. With m the mean and s = sqrt(var + epsilon):
//
//     output = max(0, z),  z = (x - m) / s * weight + bias
//     g = grad where z > 0, else 0;  y = (x - m) / s;  <.> the mean over rows
//     grad_bias = sum(g);  grad_weight = sum(g * y);  grad_input = weight / s * (g - <g> - y * <g * y>)
//
// Occupancy: 37 % or more.

struct Channel { float mean, scale, bias; };

// Rows that a thread reads of two tensors before it computes.
constexpr int AHEAD_OF_TWO = 2;

// z is made without fused multiply-add, forward and backward: the ReLU passes the same numbers twice.
__device__ __forceinline__ Channel channel_of(const float* mean, const float* var, const float* weight, const float* bias,
                                              int c, double epsilon) {
    float inverse = float(1.0 / sqrt(double(var[c]) + epsilon));
    return Channel{mean[c], __fmul_rn(weight[c], inverse), bias[c]};
}

__device__ __forceinline__ float affine(Channel channel, float x) {
    return __fadd_rn(__fmul_rn(__fsub_rn(x, channel.mean), channel.scale), channel.bias);
}

// A block's channels, the first of which is `first`, for `affine`; and what else `more` is told to make of each.
template <class F>
__device__ __forceinline__ void share_channels(Channel (&shared)[WIDE_CHANNELS], const float* mean, const float* var,
                                               const float* weight, const float* bias, int first, int channels, double epsilon,
                                               F more) {
    int at = thread_of_block();
    if (at < WIDE_CHANNELS && first + at < channels) {
        shared[at] = channel_of(mean, var, weight, bias, first + at, epsilon);
        more(at, first + at);
    }
    __syncthreads();
}

// A block makes ROWS_PER_BLOCK rows of 32 channels.
extern "C" __global__ void __launch_bounds__(256) batch_norm_relu(const Number* input, Number* output, const float* mean,
                                                                  const float* var, const float* weight, const float* bias,
                                                                  double epsilon, Matrix in, int out_ld) {
    int c = blockIdx.y * LANES + threadIdx.x;
    if (c >= in.c) return;
    Channel channel = channel_of(mean, var, weight, bias, c, epsilon);
    int first = blockIdx.x * ROWS_PER_BLOCK, end = min(first + ROWS_PER_BLOCK, in.rows);
    for (int row = first + threadIdx.y; row < end; row += ROW_LANES) {
        float z = affine(channel, value(input[row * in.ld + c]));
        output[row * out_ld + c] = rounded(z > 0.0f ? z : 0.0f);
    }
}

// The same, 16 bytes at a time.
extern "C" __global__ void __launch_bounds__(256)
batch_norm_relu_wide(const Wide* input, Wide* output, const float* mean, const float* var, const float* weight, const float* bias,
                     double epsilon, Matrix in, int out_ld, int rows) {
    __shared__ Channel shared[WIDE_CHANNELS];
    int c = blockIdx.y * WIDE_LANES + threadIdx.x;
    int first = blockIdx.x * rows, end = c < in.c ? min(first + rows, in.rows) : 0;
    Wide read[AHEAD];
    auto load = [&](int row) {
#pragma unroll
        for (int i = 0; i < AHEAD; i++)
            if (row + i * WIDE_ROWS < end) read[i] = input[(row + i * WIDE_ROWS) * in.ld + c];
    };
    // On its way while the roots are taken.
    load(first + threadIdx.y);
    share_channels(shared, mean, var, weight, bias, blockIdx.y * WIDE_CHANNELS, in.c * WIDE, epsilon, [](int, int) {});
    Channel channels[WIDE];
    for (int at = 0; at < WIDE; at++) channels[at] = shared[threadIdx.x * WIDE + at];
    for (int row = first + threadIdx.y; row < end; row += AHEAD * WIDE_ROWS) {
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            if (row + i * WIDE_ROWS >= end) break;
            float numbers[WIDE];
            unpack(read[i], numbers);
            for (int at = 0; at < WIDE; at++) {
                float z = affine(channels[at], numbers[at]);
                numbers[at] = z > 0.0f ? z : 0.0f;
            }
            pack(numbers, output[(row + i * WIDE_ROWS) * out_ld + c]);
        }
        load(row + AHEAD * WIDE_ROWS);
    }
}

// m and 1 / s in f64, from the moments that forward rounded.
extern "C" __global__ void normaliser(const float* mean, const float* var, double epsilon, Pair* out, int count) {
    int c = item();
    if (c < count) out[c] = Pair{mean[c], 1.0 / sqrt(double(var[c]) + epsilon)};
}

// sums (c, blocks) of g and of g * y.
extern "C" __global__ void __launch_bounds__(256)
batch_norm_sums(const Number* input, const Number* grad, const float* mean, const float* var, const float* weight,
                const float* bias, double epsilon, const Pair* normalisers, Matrix in, int grad_ld, Pair* sums) {
    __shared__ Pair shared[LANES * ROW_LANES];
    int c = blockIdx.y * LANES + threadIdx.x;
    int first = blockIdx.x * ROWS_PER_BLOCK, end = min(first + ROWS_PER_BLOCK, in.rows);
    Pair mine = {0.0, 0.0};
    if (c < in.c) {
        Channel channel = channel_of(mean, var, weight, bias, c, epsilon);
        Pair normaliser = normalisers[c];
        for (int row = first + threadIdx.y; row < end; row += ROW_LANES) {
            float x = value(input[row * in.ld + c]);
            double g = affine(channel, x) > 0.0f ? value(grad[row * grad_ld + c]) : 0.0f;
            mine = add(mine, Pair{g, g * ((x - normaliser.a) * normaliser.b)});
        }
    }
    Pair all = sum_of_lanes(shared, mine);
    if (threadIdx.y == 0 && c < in.c) sums[c * gridDim.x + blockIdx.x] = all;
}

// The same over many rows, 16 bytes at a time; each thread sums its few in f32.
extern "C" __global__ void __launch_bounds__(256)
batch_norm_sums_wide(const Wide* input, const Wide* grad, const float* mean, const float* var, const float* weight, const float* bias,
                     double epsilon, Matrix in, int grad_ld, Pair* sums, int rows) {
    __shared__ Pair shared[WARPS][WIDE_CHANNELS];
    __shared__ Channel channels[WIDE_CHANNELS];
    __shared__ double inverses[WIDE_CHANNELS];
    int c = blockIdx.y * WIDE_LANES + threadIdx.x, thread = thread_of_block();
    int first = blockIdx.x * rows, end = c < in.c ? min(first + rows, in.rows) : 0;
    Wide read[AHEAD_OF_TWO], grads[AHEAD_OF_TWO];
    auto load = [&](int row) {
#pragma unroll
        for (int i = 0; i < AHEAD_OF_TWO; i++)
            if (row + i * WIDE_ROWS < end) {
                read[i] = input[(row + i * WIDE_ROWS) * in.ld + c];
                grads[i] = grad[(row + i * WIDE_ROWS) * grad_ld + c];
            }
    };
    load(first + threadIdx.y);
    share_channels(channels, mean, var, weight, bias, blockIdx.y * WIDE_CHANNELS, in.c * WIDE, epsilon,
                   [&](int at, int c) { inverses[at] = 1.0 / sqrt(double(var[c]) + epsilon); });
    float all_g[WIDE] = {}, all_gd[WIDE] = {};
    Channel mine[WIDE];
    for (int at = 0; at < WIDE; at++) mine[at] = channels[threadIdx.x * WIDE + at];
    for (int row = first + threadIdx.y; row < end; row += AHEAD_OF_TWO * WIDE_ROWS) {
#pragma unroll
        for (int i = 0; i < AHEAD_OF_TWO; i++) {
            if (row + i * WIDE_ROWS >= end) break;
            float x[WIDE], g[WIDE];
            unpack(read[i], x);
            unpack(grads[i], g);
            for (int at = 0; at < WIDE; at++) {
                float passed = affine(mine[at], x[at]) > 0.0f ? g[at] : 0.0f;
                all_g[at] += passed;
                all_gd[at] += passed * (x[at] - mine[at].mean);
            }
        }
        load(row + AHEAD_OF_TWO * WIDE_ROWS);
    }
    Pair all = sum_of_rows(shared, all_g, all_gd);
    int at = blockIdx.y * WIDE_CHANNELS + thread;
    if (thread < WIDE_CHANNELS && at < in.c * WIDE) sums[at * gridDim.x + blockIdx.x] = Pair{all.a, all.b * inverses[thread]};
}

// One block for each channel: <g> and <g * y>, and the gradients of bias and weight.
extern "C" __global__ void __launch_bounds__(256)
batch_norm_means(const Pair* sums, int blocks, int rows, Pair* means, float* grad_weight, float* grad_bias) {
    __shared__ Pair shared[THREADS];
    int c = blockIdx.x;
    Pair all = sum_of_block(shared, sums + c * blocks, blocks);
    if (threadIdx.x == 0) {
        means[c] = Pair{all.a / rows, all.b / rows};
        grad_bias[c] = float(all.a);
        grad_weight[c] = float(all.b);
    }
}

// grad_input, which may be grad_output.
extern "C" __global__ void __launch_bounds__(256)
batch_norm_backward(const Number* input, const Number* grad_output, Number* grad_input, const float* mean, const float* var, const float* weight,
                    const float* bias, double epsilon, const Pair* normalisers, const Pair* means, Matrix in, int out_ld, int in_ld) {
    int c = blockIdx.y * LANES + threadIdx.x;
    if (c >= in.c) return;
    Channel channel = channel_of(mean, var, weight, bias, c, epsilon);
    Pair normaliser = normalisers[c], average = means[c];
    double factor = weight[c] * normaliser.b;
    int first = blockIdx.x * ROWS_PER_BLOCK, end = min(first + ROWS_PER_BLOCK, in.rows);
    for (int row = first + threadIdx.y; row < end; row += ROW_LANES) {
        float x = value(input[row * in.ld + c]);
        double g = affine(channel, x) > 0.0f ? value(grad_output[row * out_ld + c]) : 0.0f;
        grad_input[row * in_ld + c] = rounded(float(factor * (g - average.a - (x - normaliser.a) * normaliser.b * average.b)));
    }
}

// The same over many rows, 16 bytes at a time, in f32.
extern "C" __global__ void __launch_bounds__(256)
batch_norm_backward_wide(const Wide* input, const Wide* grad_output, Wide* grad_input, const float* mean, const float* var,
                         const float* weight, const float* bias, double epsilon, const Pair* means, Matrix in, int out_ld, int in_ld, int rows) {
    __shared__ Channel channels[WIDE_CHANNELS];
    // <g>, and <g * y> / s.
    __shared__ float2 averages[WIDE_CHANNELS];
    int c = blockIdx.y * WIDE_LANES + threadIdx.x;
    int first = blockIdx.x * rows, end = c < in.c ? min(first + rows, in.rows) : 0;
    Wide read[AHEAD_OF_TWO], grads[AHEAD_OF_TWO];
    auto load = [&](int row) {
#pragma unroll
        for (int i = 0; i < AHEAD_OF_TWO; i++)
            if (row + i * WIDE_ROWS < end) {
                read[i] = input[(row + i * WIDE_ROWS) * in.ld + c];
                grads[i] = grad_output[(row + i * WIDE_ROWS) * out_ld + c];
            }
    };
    load(first + threadIdx.y);
    share_channels(channels, mean, var, weight, bias, blockIdx.y * WIDE_CHANNELS, in.c * WIDE, epsilon, [&](int at, int c) {
        averages[at] = make_float2(float(means[c].a), float(means[c].b / sqrt(double(var[c]) + epsilon)));
    });
    Channel mine[WIDE];
    float2 mine_of[WIDE];
    for (int at = 0; at < WIDE; at++) {
        mine[at] = channels[threadIdx.x * WIDE + at];
        mine_of[at] = averages[threadIdx.x * WIDE + at];
    }
    for (int row = first + threadIdx.y; row < end; row += AHEAD_OF_TWO * WIDE_ROWS) {
#pragma unroll
        for (int i = 0; i < AHEAD_OF_TWO; i++) {
            if (row + i * WIDE_ROWS >= end) break;
            float x[WIDE], g[WIDE];
            unpack(read[i], x);
            unpack(grads[i], g);
            for (int at = 0; at < WIDE; at++) {
                float passed = affine(mine[at], x[at]) > 0.0f ? g[at] : 0.0f;
                g[at] = mine[at].scale * (passed - mine_of[at].x - (x[at] - mine[at].mean) * mine_of[at].y);
            }
            pack(g, grad_input[(row + i * WIDE_ROWS) * in_ld + c]);
        }
        load(row + AHEAD_OF_TWO * WIDE_ROWS);
    }
}
