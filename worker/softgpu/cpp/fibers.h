// Runs a kernel block by block, with a fiber for each thread of a block that has barriers.
//
// A barrier parks the fiber until all others wait at the same one; a kernel without barriers runs its
// threads one after the other in a loop. A seed chooses the order of the blocks, of a block's threads,
// anew after each barrier, and how far one warp runs ahead of another. Shared memory holds NaN when a
// block begins. A barrier that some threads do not reach, or not the same one, ends the process.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <sys/mman.h>
#include <utility>
#include <vector>

#include "launch.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

struct dim3 { unsigned x = 1, y = 1, z = 1; };

// The bounds of the section of shared memory, which a file without any does not have.
extern "C" __attribute__((weak, visibility("hidden"))) char __start_hw2_shared[];
extern "C" __attribute__((weak, visibility("hidden"))) char __stop_hw2_shared[];

namespace soft {

constexpr unsigned WARP = 32;
#if defined(__SANITIZE_ADDRESS__)
constexpr size_t STACK_BYTES = 256 << 10;
#else
constexpr size_t STACK_BYTES = 32 << 10;
#endif

enum State { READY, AT_WARP, AT_BLOCK, DONE };

// Where a barrier stands in the source: two of them may share a line.
struct Site { int number, line; };

struct Fiber {
    void* stack_pointer;
    State state;
    Site site;
    // What the thread offers in a shuffle.
    uint64_t offered;
};

// A small generator (xorshift): an order is drawn for each block and after each barrier.
struct Chance {
    uint64_t state;
    // All orders are those of the indices if there is no seed.
    bool is_seeded() const { return state != 0; }
    uint32_t bits() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        return state >> 16;
    }
    unsigned below(unsigned end) { return uint64_t(bits()) * end >> 32; }
    void shuffle(std::vector<unsigned>& order) {
        if (!is_seeded()) return;
        for (unsigned i = order.size(); i > 1; i--) std::swap(order[i - 1], order[below(i)]);
    }
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
static Chance chance;

[[noreturn]] static inline void die(const char* what) {
    auto [x, y, z] = block_index;
    fprintf(stderr, "software GPU: %s: block (%u, %u, %u) thread %u\n", what, x, y, z, thread);
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

// What the address sanitizer must hear of a change of stacks.
#if defined(__SANITIZE_ADDRESS__)
static const void* scheduler_stack;
static size_t scheduler_stack_bytes;

static inline void leave_for(void** fake, const void* stack, size_t bytes) {
    __sanitizer_start_switch_fiber(fake, stack, bytes);
}
static inline void arrived(void* fake) { __sanitizer_finish_switch_fiber(fake, nullptr, nullptr); }
static inline void leave_for_scheduler(void** fake) { leave_for(fake, scheduler_stack, scheduler_stack_bytes); }
static inline void arrived_from_scheduler(void* fake) {
    __sanitizer_finish_switch_fiber(fake, &scheduler_stack, &scheduler_stack_bytes);
}
#else
static inline void leave_for(void**, const void*, size_t) {}
static inline void arrived(void*) {}
static inline void leave_for_scheduler(void**) {}
static inline void arrived_from_scheduler(void*) {}
#endif

static inline void select(unsigned linear) {
    thread = linear;
    thread_index = {linear % block.x, linear / block.x % block.y, linear / (block.x * block.y)};
}

static void fiber_main() {
    arrived_from_scheduler(nullptr);
    body(body_context);
    fibers[thread].state = DONE;
    leave_for_scheduler(nullptr);
    soft_switch(&fibers[thread].stack_pointer, scheduler);
    die("a thread ran on after its end");
}

static inline void prepare(unsigned linear) {
    void** stack = reinterpret_cast<void**>(stacks + (linear + 1) * STACK_BYTES) - 2;
    *stack = reinterpret_cast<void*>(fiber_main);  // aligned as after a call
    stack -= SAVED_WORDS;
    std::fill_n(stack, SAVED_WORDS, nullptr);
    fibers[linear] = {stack, READY, {}, 0};
}

static inline void enter(unsigned linear) {
    void* fake = nullptr;
    select(linear);
    leave_for(&fake, stacks + linear * STACK_BYTES, STACK_BYTES);
    soft_switch(&scheduler, fibers[linear].stack_pointer);
    arrived(fake);
}

static inline void park(State state, Site site) {
    if (!has_barriers) die("a barrier in a kernel that was taken for one without");
    Fiber& parked = fibers[thread];
    parked.state = state;
    parked.site = site;
    void* fake = nullptr;
    leave_for_scheduler(&fake);
    soft_switch(&parked.stack_pointer, scheduler);
    arrived_from_scheduler(fake);
}

// Whether threads [first, end) all wait at `state`; at different barriers of that kind they must not.
static inline bool is_complete(unsigned first, unsigned end, State state) {
    for (unsigned i = first; i < end; i++)
        if (fibers[i].state != state) return false;
    for (unsigned i = first; i < end; i++) {
        Site here = fibers[i].site, there = fibers[first].site;
        if (here.number == there.number) continue;
        select(i);
        fprintf(stderr, "software GPU: lines %d and %d\n", there.line, here.line);
        die("threads that should meet wait at different barriers");
    }
    return true;
}

static inline void wake(unsigned first, unsigned end) {
    for (unsigned i = first; i < end; i++) fibers[i].state = READY;
}

// Wakes the warps that may go on; if there are none, the block if it may. False if nothing may.
static inline bool release(unsigned count) {
    bool woke = false;
    for (unsigned first = 0; first < count; first += WARP) {
        unsigned end = std::min(first + WARP, count);
        if (!is_complete(first, end, AT_WARP)) continue;
        wake(first, end);
        woke = true;
    }
    if (woke || !is_complete(0, count, AT_BLOCK)) return woke;
    wake(0, count);
    return true;
}

// Runs the threads that may run, but not those of some of the warps, so that others run ahead of
// these. Whether there was any of these.
static inline bool run_some(std::vector<unsigned>& order) {
    bool is_any_held = false;
    unsigned held = chance.is_seeded() ? chance.bits() : 0;
    chance.shuffle(order);
    for (unsigned i : order) {
        if (fibers[i].state != READY) continue;
        bool is_held = held >> (i / WARP) & 1;
        is_any_held |= is_held;
        if (!is_held) enter(i);
    }
    return is_any_held;
}

static inline void run_fibers(std::vector<unsigned>& order) {
    unsigned count = order.size();
    for (unsigned i = 0; i < count; i++) prepare(i);
    bool may_go_on = true;
    while (may_go_on) {
        bool is_any_held = run_some(order);
        may_go_on = release(count) || is_any_held;
    }
    for (unsigned i = 0; i < count; i++)
        if (fibers[i].state != DONE) {
            select(i);
            die("a barrier that not all threads reach");
        }
}

static inline void run_threads(std::vector<unsigned>& order) {
    chance.shuffle(order);
    for (unsigned linear : order) {
        select(linear);
        body(body_context);
    }
}

static inline void make_stacks(size_t count) {
    if (count <= stacks_count) return;
    if (stacks) munmap(stacks, stacks_count * STACK_BYTES);
    stacks = static_cast<char*>(mmap(nullptr, count * STACK_BYTES, PROT_READ | PROT_WRITE,
                                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (stacks == MAP_FAILED) die("no memory for stacks");
    stacks_count = count;
    fibers.resize(count);
}

// Fills shared memory with NaN. The sanitizer has red zones between the variables, where only code
// that it does not look at may write.
__attribute__((no_sanitize("address"))) static void forget_shared_memory() {
    if (!__start_hw2_shared) return;
#if defined(__SANITIZE_ADDRESS__)
    for (volatile char* at = __start_hw2_shared; at < __stop_hw2_shared; at++) *at = char(0xff);
#else
    memset(__start_hw2_shared, 0xff, __stop_hw2_shared - __start_hw2_shared);
#endif
}

static inline void run_blocks() {
    std::vector<unsigned> order(block.x * block.y * block.z);
    std::iota(order.begin(), order.end(), 0u);
    if (has_barriers) make_stacks(order.size());
    unsigned blocks = grid.x * grid.y * grid.z, first = 0, stride = 1;
    // The blocks start anywhere and go any way round.
    if (chance.is_seeded()) {
        first = chance.below(blocks);
        do stride = chance.below(blocks) + 1; while (std::gcd(stride, blocks) != 1);
    }
    for (size_t i = 0; i < blocks; i++) {
        unsigned index = (first + i * stride) % blocks;
        block_index = {index % grid.x, index / grid.x % grid.y, index / (grid.x * grid.y)};
        forget_shared_memory();
        has_barriers ? run_fibers(order) : run_threads(order);
    }
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
    chance.state = launch.seed * 0x9e3779b97f4a7c15u;
    body_context = &context;
    body = [](void* pointer) {
        auto* context = static_cast<Context*>(pointer);
        call(context->kernel, context->args, std::index_sequence_for<A...>{});
    };
    run_blocks();
}

// Every thread of the warp offers a value and gets that of the lane that `from` names.
template <class T, class From>
static inline T exchange(Site site, unsigned mask, T value, From from) {
    static_assert(sizeof(T) <= sizeof(uint64_t), "a shuffle moves a word");
    if (mask != 0xffffffffu) die("a shuffle of a part of a warp");
    memcpy(&fibers[thread].offered, &value, sizeof value);
    park(AT_WARP, site);
    unsigned count = block.x * block.y * block.z, first = thread / WARP * WARP;
    unsigned lane = from(thread % WARP);
    if (lane < WARP && first + lane < count) memcpy(&value, &fibers[first + lane].offered, sizeof value);
    park(AT_WARP, site);
    return value;
}

// What a thread does at a place of the source where it meets others.
struct Meeting {
    Site site;
    void block() const { park(AT_BLOCK, site); }
    void warp(unsigned mask = 0xffffffffu) const {
        if (mask != 0xffffffffu) die("a barrier of a part of a warp");
        park(AT_WARP, site);
    }
    template <class T> T xor_lane(unsigned mask, T value, int lanes) const {
        return exchange(site, mask, value, [=](unsigned lane) { return lane ^ unsigned(lanes); });
    }
    template <class T> T lane_above(unsigned mask, T value, unsigned lanes) const {
        return exchange(site, mask, value, [=](unsigned lane) { return lane + lanes; });
    }
};

}  // namespace soft
