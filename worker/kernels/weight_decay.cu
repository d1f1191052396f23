// The derivative and the value of decay * sum(weight^2) / 2.
//
// Occupancy: 50 % or more.

// Each thread of a block takes this many numbers.
constexpr int DECAYED_PER_THREAD = 16;

// sums (blocks).
extern "C" __global__ void __launch_bounds__(256)
weight_decay(const float* weight, float* grad_weight, float decay, int count, Pair* sums) {
    __shared__ Pair shared[THREADS];
    int first = blockIdx.x * THREADS * DECAYED_PER_THREAD + threadIdx.x;
    Pair mine = {0.0, 0.0};
    for (int i = 0; i < DECAYED_PER_THREAD; i++) {
        int at = first + i * THREADS;
        if (at >= count) break;
        double w = weight[at];
        mine.a += w * w;
        grad_weight[at] += decay * weight[at];
    }
    Pair all = sum_of_threads(shared, mine);
    if (threadIdx.x == 0) sums[blockIdx.x] = all;
}

// One block.
extern "C" __global__ void __launch_bounds__(256) weight_decay_penalty(const Pair* sums, int blocks, float decay, float* penalty) {
    __shared__ Pair shared[THREADS];
    Pair all = sum_of_block(shared, sums, blocks);
    if (threadIdx.x == 0) *penalty = float(double(decay) * all.a / 2.0);
}
