// Softmax, cross-entropy and their gradient, in f64; one warp for each row, in a fixed order.
//
//     p = exp(z - max z) / sum(exp(z - max z));  loss = mean of -ln p(label);  grad = (p - [class = label]) / n
//
// Occupancy: 25 % or more.

__device__ double sum_of_warp(double value) {
    for (int lanes = 16; lanes > 0; lanes /= 2) value += __shfl_xor_sync(0xffffffffu, value, lanes);
    return value;
}

struct Best { float value; int index; };

// The first of the largest.
__device__ Best best_of_warp(Best best) {
    for (int lanes = 16; lanes > 0; lanes /= 2) {
        Best other = {__shfl_xor_sync(0xffffffffu, best.value, lanes), __shfl_xor_sync(0xffffffffu, best.index, lanes)};
        // An index below 0 is no number at all.
        bool is_better = other.index >= 0 && (best.index < 0 || other.value > best.value ||
                                              (other.value == best.value && other.index < best.index));
        if (is_better) best = other;
    }
    return best;
}

// results (n): loss and hit of each row.
extern "C" __global__ void __launch_bounds__(32)
softmax_rows(const float* logits, const float* labels, Number* grad_logits, int classes, int ld, int grad_ld, int n,
             Pair* results) {
    int row = blockIdx.x, lane = threadIdx.x, label = int(labels[row]);
    const float* z = logits + row * ld;
    // A NaN is never the largest, unless it is the first of all, as in the loop `z > best`.
    Best best = {0.0f, -1};
    bool is_finite = true;
    for (int c = lane; c < classes; c += 32) {
        if (best.index < 0 || z[c] > best.value) best = Best{z[c], c};
        is_finite = is_finite && z[c] - z[c] == 0.0f;
    }
    best = best_of_warp(best);
    bool all_finite = sum_of_warp(is_finite ? 0.0 : 1.0) == 0.0;
    double largest = best.value, sum = 0.0;
    for (int c = lane; c < classes; c += 32) sum += exp(double(z[c]) - largest);
    sum = sum_of_warp(sum);
    for (int c = lane; c < classes; c += 32) {
        double p = exp(double(z[c]) - largest) / sum;
        grad_logits[row * grad_ld + c] = rounded(float((p - (c == label ? 1.0 : 0.0)) / n));
    }
    if (lane == 0) {
        double loss = log(sum) - (double(z[label]) - largest);
        results[row] = Pair{loss, best.index == label && all_finite ? 1.0 : 0.0};
    }
}

// One block.
extern "C" __global__ void __launch_bounds__(256) softmax_sums(const Pair* results, int n, float* loss, float* top1) {
    __shared__ Pair shared[THREADS];
    Pair all = sum_of_block(shared, results, n);
    if (threadIdx.x == 0) {
        *loss = float(all.a / n);
        *top1 = float(all.b);
    }
}
