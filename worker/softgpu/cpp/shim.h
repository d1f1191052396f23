// CUDA C++ on the host: what a .cu file needs to be compiled by g++ and run block by block.
//
// A kernel with barriers gets one fiber for each thread of a block; a barrier parks the fiber until
// all others wait there too. A kernel without runs its threads one after the other in a loop. Blocks
// and threads are taken in an order that a seed chooses. Shared memory holds NaN when a block begins.
// A barrier that some threads do not reach ends the process.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <random>
#include <sys/mman.h>
#include <utility>
#include <vector>

#define __global__ __attribute__((visibility("hidden")))
#define __device__ static inline
#define __forceinline__
#define __launch_bounds__(...)
#define __shared__ static __attribute__((section("hw2_shared")))

struct dim3 { unsigned x = 1, y = 1, z = 1; };
struct float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct uint4 { unsigned x, y, z, w; };
static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

// What libcuda hands to a launch.
struct SoftLaunch { unsigned grid[3], block[3]; unsigned seed; void** args; };

// The bounds of the section of shared memory, which a file without any does not have.
extern "C" __attribute__((weak, visibility("hidden"))) char __start_hw2_shared[];
extern "C" __attribute__((weak, visibility("hidden"))) char __stop_hw2_shared[];

namespace soft {

constexpr unsigned WARP = 32;
constexpr size_t STACK_BYTES = 32 << 10;

enum State { READY, AT_WARP, AT_BLOCK, DONE };

struct Fiber {
    void* stack_pointer;
    State state;
    // What the thread offers in a shuffle.
    uint64_t offered;
};

static dim3 grid, block, block_index, thread_index;
static unsigned thread;  // linear index of the one that runs
static std::vector<Fiber> fibers;
static char* stacks;
static size_t stacks_count;
static void* scheduler;
static bool has_barriers;
static void (*body)(void*);
static void* body_context;

[[noreturn]] static inline void die(const char* what) {
    fprintf(stderr, "software GPU: %s: block (%u, %u, %u) thread %u\n", what, block_index.x,
            block_index.y, block_index.z, thread);
    abort();
}

// Saves what a call must preserve, and goes on where `to` was saved.
extern "C" void soft_switch(void** from, void* to);
#if defined(__x86_64__)
asm(R"(
.text
.local soft_switch
soft_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
)");
constexpr size_t SAVED_WORDS = 6;
#else
#error "the software GPU switches fibers on x86-64 only"
#endif

static inline void select(unsigned linear) {
    thread = linear;
    thread_index = {linear % block.x, linear / block.x % block.y, linear / (block.x * block.y)};
}

static void fiber_main() {
    body(body_context);
    fibers[thread].state = DONE;
    soft_switch(&fibers[thread].stack_pointer, scheduler);
    die("a thread ran on after its end");
}

static inline void prepare(unsigned linear) {
    char* top = stacks + (linear + 1) * STACK_BYTES;
    void** stack = reinterpret_cast<void**>(top) - 2;
    *stack = reinterpret_cast<void*>(fiber_main);  // aligned as after a call
    stack -= SAVED_WORDS;
    std::fill_n(stack, SAVED_WORDS, nullptr);
    fibers[linear] = {stack, READY, 0};
}

static inline void park(State state) {
    if (!has_barriers) die("a barrier in a kernel that was taken for one without");
    fibers[thread].state = state;
    unsigned parked = thread;
    soft_switch(&fibers[parked].stack_pointer, scheduler);
}

// Wakes threads [first, end) if all of them wait at `state`.
static inline bool release(unsigned first, unsigned end, State state) {
    for (unsigned i = first; i < end; i++)
        if (fibers[i].state != state) return false;
    for (unsigned i = first; i < end; i++) fibers[i].state = READY;
    return true;
}

static inline void run_fibers(const std::vector<unsigned>& order) {
    unsigned count = order.size();
    for (unsigned i = 0; i < count; i++) prepare(i);
    for (;;) {
        for (unsigned i : order)
            if (fibers[i].state == READY) {
                select(i);
                soft_switch(&scheduler, fibers[i].stack_pointer);
            }
        bool woke = false;
        for (unsigned w = 0; w < count; w += WARP)
            woke |= release(w, std::min(w + WARP, count), AT_WARP);
        if (!woke) woke = release(0, count, AT_BLOCK);
        if (woke) continue;
        for (unsigned i = 0; i < count; i++)
            if (fibers[i].state != DONE) {
                select(i);
                die("a barrier that not all threads reach");
            }
        return;
    }
}

static inline void make_stacks(size_t count) {
    if (count <= stacks_count) return;
    stacks = static_cast<char*>(mmap(nullptr, count * STACK_BYTES, PROT_READ | PROT_WRITE,
                                     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (stacks == MAP_FAILED) die("no memory for stacks");
    stacks_count = count;
    fibers.resize(count);
}

template <class... A, size_t... I>
static void call(void (*kernel)(A...), void** args, std::index_sequence<I...>) {
    kernel(*static_cast<A*>(args[I])...);
}

// How long each argument is; how many there are.
template <class... A>
static size_t arg_sizes(void (*)(A...), size_t* to) {
    if (to) {
        size_t sizes[] = {sizeof(A)..., 0};
        std::copy_n(sizes, sizeof...(A), to);
    }
    return sizeof...(A);
}

template <class... A>
static void launch(void (*kernel)(A...), bool barriers, const SoftLaunch& launch) {
    struct Context { void (*kernel)(A...); void** args; } context{kernel, launch.args};
    grid = {launch.grid[0], launch.grid[1], launch.grid[2]};
    block = {launch.block[0], launch.block[1], launch.block[2]};
    has_barriers = barriers;
    body_context = &context;
    body = [](void* pointer) {
        auto* context = static_cast<Context*>(pointer);
        call(context->kernel, context->args, std::index_sequence_for<A...>{});
    };
    unsigned threads = block.x * block.y * block.z;
    size_t blocks = size_t(grid.x) * grid.y * grid.z;
    std::vector<unsigned> order(threads);
    std::iota(order.begin(), order.end(), 0u);
    std::mt19937 random(launch.seed);
    // Seed 0 is the order of the indices; any other one starts anywhere and goes any way round.
    size_t first = 0, stride = 1;
    if (launch.seed != 0) {
        std::shuffle(order.begin(), order.end(), random);
        first = random() % blocks;
        do stride = random() % blocks + 1; while (std::gcd(stride, blocks) != 1);
    }
    if (barriers) make_stacks(threads);
    size_t shared = __start_hw2_shared ? __stop_hw2_shared - __start_hw2_shared : 0;
    for (size_t i = 0; i < blocks; i++) {
        size_t index = (first + i * stride) % blocks;
        block_index.x = index % grid.x;
        block_index.y = index / grid.x % grid.y;
        block_index.z = index / (size_t(grid.x) * grid.y);
        if (shared) memset(__start_hw2_shared, 0xff, shared);
        if (barriers) {
            run_fibers(order);
        } else {
            for (unsigned linear : order) {
                select(linear);
                body(body_context);
            }
        }
    }
}

// Every thread of the warp offers a value and gets that of the lane that `from` names.
template <class T, class From>
static inline T shuffle(unsigned mask, T value, From from) {
    static_assert(sizeof(T) <= sizeof(uint64_t), "a shuffle moves a word");
    if (mask != 0xffffffffu) die("a shuffle of a part of a warp");
    memcpy(&fibers[thread].offered, &value, sizeof value);
    park(AT_WARP);
    unsigned count = block.x * block.y * block.z, first = thread / WARP * WARP;
    unsigned lane = from(thread % WARP);
    if (lane < WARP && first + lane < count) memcpy(&value, &fibers[first + lane].offered, sizeof value);
    park(AT_WARP);
    return value;
}

}  // namespace soft

#define threadIdx (soft::thread_index)
#define blockIdx (soft::block_index)
#define blockDim (soft::block)
#define gridDim (soft::grid)

static inline void __syncthreads() { soft::park(soft::AT_BLOCK); }
static inline void __syncwarp() { soft::park(soft::AT_WARP); }
template <class T> static inline T __shfl_xor_sync(unsigned mask, T value, int lanes) {
    return soft::shuffle(mask, value, [=](unsigned lane) { return lane ^ unsigned(lanes); });
}
template <class T> static inline T __shfl_down_sync(unsigned mask, T value, unsigned lanes) {
    return soft::shuffle(mask, value, [=](unsigned lane) { return lane + lanes; });
}

static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fsub_rn(float a, float b) { return a - b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline unsigned __umulhi(unsigned a, unsigned b) { return uint64_t(a) * b >> 32; }
static inline unsigned __float_as_uint(float value) { unsigned bits; memcpy(&bits, &value, 4); return bits; }
static inline float __uint_as_float(unsigned bits) { float value; memcpy(&value, &bits, 4); return value; }
using std::max;
using std::min;
