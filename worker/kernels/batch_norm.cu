// Batch normalisation with the ReLU that follows it. With m the mean and s = sqrt(var + epsilon):
//
//     output = max(0, z),  z = (x - m) / s * weight + bias
//     g = grad where z > 0, else 0;  y = (x - m) / s;  <.> the mean over rows
//     grad_bias = sum(g);  grad_weight = sum(g * y);  grad_input = weight / s * (g - <g> - y * <g * y>)
//
// Occupancy: 50 % or more.

struct Channel { float mean, scale, bias; };

// z is made without fused multiply-add, forward and backward: the ReLU passes the same numbers twice.
__device__ __forceinline__ Channel channel_of(const float* mean, const float* var, const float* weight, const float* bias,
                                              int c, double epsilon) {
    float inverse = float(1.0 / sqrt(double(var[c]) + epsilon));
    return Channel{mean[c], __fmul_rn(weight[c], inverse), bias[c]};
}

__device__ __forceinline__ float affine(Channel channel, float x) {
    return __fadd_rn(__fmul_rn(__fsub_rn(x, channel.mean), channel.scale), channel.bias);
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
