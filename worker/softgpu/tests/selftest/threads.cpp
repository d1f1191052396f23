// The threads of a kernel, and how it is compiled and launched.
#include <algorithm>
#include <cstring>

#include "selftest.h"

extern const char* KERNELS;
const char* KERNELS = R"(
extern "C" __global__ void fill(float* to, float value, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) to[i] = value;
}

// Each thread takes what its neighbour has put into shared memory.
extern "C" __global__ void exchange(float* values) {
    __shared__ float shared[128];
    shared[threadIdx.x] = values[threadIdx.x];
    __syncthreads();
    values[threadIdx.x] = shared[(threadIdx.x + 1) % 128];
}

// The same with the barrier in the wrong place.
extern "C" __global__ void exchange_without_barrier(float* values) {
    __shared__ float shared[128];
    __syncthreads();
    shared[threadIdx.x] = values[threadIdx.x];
    values[threadIdx.x] = shared[(threadIdx.x + 1) % 128];
}

extern "C" __global__ void divergent(float* values) {
    if (threadIdx.x < 64) __syncthreads();
    values[threadIdx.x] = 0.0f;
}

// All threads wait, but not at the same place.
extern "C" __global__ void two_barriers(float* values) {
    if (threadIdx.x < 64) { __syncthreads(); } else { __syncthreads(); }
    values[threadIdx.x] = 0.0f;
}

extern "C" __global__ void two_warp_barriers(float* values) {
    if (threadIdx.x % 32 < 16) { __syncwarp(); } else { __syncwarp(); }
    values[threadIdx.x] = 0.0f;
}

extern "C" __global__ void two_shuffles(float* values) {
    float value = values[threadIdx.x];
    if (threadIdx.x % 2) value += __shfl_xor_sync(0xffffffffu, value, 1);
    else value -= __shfl_xor_sync(0xffffffffu, value, 1);
    values[threadIdx.x] = value;
}

extern "C" __global__ void lanes(float* values) {
    float value = values[threadIdx.x];
    for (int lanes = 16; lanes > 0; lanes /= 2) value += __shfl_xor_sync(0xffffffffu, value, lanes);
    values[threadIdx.x] = value;
}

// The thread that writes last in each block.
extern "C" __global__ void last(float* values) { values[blockIdx.x] = threadIdx.x; }

// The same before and after a barrier.
extern "C" __global__ void last_twice(float* values) {
    values[2 * blockIdx.x] = threadIdx.x;
    __syncthreads();
    values[2 * blockIdx.x + 1] = threadIdx.x;
}

// The first warp reads what the second one writes after a barrier of its own.
extern "C" __global__ void read_ahead(float* values) {
    if (threadIdx.x >= 32) {
        __syncwarp();
        values[threadIdx.x] = 1.0f;
    } else {
        values[threadIdx.x] = values[threadIdx.x + 32];
        __syncwarp();
    }
}

extern "C" __global__ void arch(float* values) { values[threadIdx.x] = __CUDA_ARCH__; }

constexpr int FEW = 32;
extern "C" __global__ void __launch_bounds__((FEW * 2), 1) bounded(float* values) { values[threadIdx.x] = 1.0f; }

extern "C" __global__ void read_beyond(float* values) {
    if (threadIdx.x == 0) values[0] = values[128];
}

extern "C" __global__ void write_beyond_shared(float* values) {
    __shared__ float shared[100];
    shared[threadIdx.x] = values[threadIdx.x];
    __syncthreads();
    values[threadIdx.x] = shared[0];
}

extern "C" __global__ void overflow(float* values) {
    int large = 0x7fffff00 + int(blockDim.x) * 2;
    values[threadIdx.x] = large + int(threadIdx.x);
}

extern "C" __global__ void misaligned(float* values) {
    if (threadIdx.x == 0) *reinterpret_cast<float4*>(values + 1) = make_float4(1.0f, 2.0f, 3.0f, 4.0f);
}
)";

static bool exchanges(const char* name) {
    void* s = stream();
    uint64_t values = memory(N);
    std::vector<float> numbers(N);
    for (int i = 0; i < N; i++) numbers[i] = float(i);
    upload(values, numbers, s);
    launch(name, s, {&values});
    auto result = read(values, s);
    for (int i = 0; i < N; i++)
        if (result[i] != float((i + 1) % N)) return false;
    return true;
}

static bool adds_lanes() {
    void* s = stream();
    uint64_t values = memory(N);
    upload(values, std::vector<float>(N, 1.0f), s);
    launch("lanes", s, {&values});
    auto result = read(values, s);
    return std::count(result.begin(), result.end(), 32.0f) == N;
}

static void run(const char* name) {
    void* s = stream();
    uint64_t values = memory(N);
    launch(name, s, {&values});
    cuStreamSynchronize(s);
}

CASE(barriers) { return seeds_that([] { return exchanges("exchange"); }) == SEEDS; }
CASE(missing_barrier) { return seeds_that([] { return exchanges("exchange_without_barrier"); }) < SEEDS; }
CASE(shuffles) { return seeds_that(adds_lanes) == SEEDS; }
CASE(divergent_barrier) { return dies([] { run("divergent"); }); }
CASE(different_barriers) { return dies([] { run("two_barriers"); }); }
CASE(different_barriers_of_a_warp) { return dies([] { run("two_warp_barriers"); }); }
CASE(different_shuffles) { return dies([] { run("two_shuffles"); }); }

// How many different numbers `name` leaves in its first `numbers`.
static size_t different(const char* name, int blocks, int numbers) {
    void* s = stream();
    uint64_t values = memory(N);
    launch(name, s, {&values}, blocks);
    auto result = read(values, s, numbers);
    std::sort(result.begin(), result.end());
    return std::unique(result.begin(), result.end()) - result.begin();
}

CASE(each_block_has_its_own_order) { return different("last", 16, 16) > 4; }
// Of a block it is the order before the barrier and the one behind.
CASE(a_barrier_changes_the_order) { return seeds_that([] { return different("last_twice", 1, 2) == 2; }) > SEEDS / 2; }

// Without a seed, in the order of the indices.
CASE(no_seed) {
    soft_seed(0);
    return different("last", 16, 16) == 1 && different("last_twice", 16, 32) == 1;
}

// Whether the first warp comes first, which nothing says it does.
static bool is_first_warp_first() {
    void* s = stream();
    uint64_t values = memory(N);
    launch("read_ahead", s, {&values}, 1, 64);
    return std::isnan(read(values, s)[0]);
}

CASE(warps_run_ahead) {
    unsigned first = seeds_that(is_first_warp_first);
    return 0 < first && first < SEEDS;
}

CASE(code_knows_its_gpu) {
    void* s = stream();
    uint64_t values = memory(N);
    launch("arch", s, {&values});
    return read(values, s)[0] == float(10 * capability());
}

// The GPU is of compute capability 8.6: it runs what is for 8.0 to 8.6.
CASE(code_for_another_gpu) {
    auto load = [](const char* arch) {
        std::string image = code(80).data();
        void* module;
        image.replace(image.find("sm_80"), 5, arch);
        return cuModuleLoadData(&module, image.c_str());
    };
    return RETURNS(0, load("sm_80")) && RETURNS(0, load("sm_86")) && RETURNS(209, load("sm_75")) &&
           RETURNS(209, load("sm_89")) && RETURNS(209, load("sm_90")) && RETURNS(200, load("PTX"));
}

CASE(launch_bounds) {
    uint64_t values = memory(N);
    void *s = stream(), *args[] = {&values}, *bounded = function("bounded");
    return RETURNS(0, cuLaunchKernel(bounded, 1, 1, 1, 64, 1, 1, 0, s, args, nullptr)) &&
           RETURNS(701, cuLaunchKernel(bounded, 1, 1, 1, 65, 1, 1, 0, s, args, nullptr));
}

// What only sanitizers see.
CASE(what_sanitizers_find) {
#if defined(__SANITIZE_ADDRESS__)
    return dies([] { run("read_beyond"); }) && dies([] { run("write_beyond_shared"); }) &&
           dies([] { run("overflow"); }) && dies([] { run("misaligned"); });
#else
    return !dies([] { run("read_beyond"); });
#endif
}
