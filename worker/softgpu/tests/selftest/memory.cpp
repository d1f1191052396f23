// Memory, copies, and what becomes of memory that is freed.
#include "selftest.h"

// Pinned memory is read when the copy is done, which may be at once; pageable memory before the call returns.
static bool uploads(bool is_pinned) {
    void* s = stream();
    uint64_t to = memory(N);
    std::vector<float> pageable(N);
    float* host = is_pinned ? pinned(N) : pageable.data();
    host[0] = 1.0f;
    MUST(cuMemcpyHtoDAsync_v2(to, host, N * sizeof(float), s));
    host[0] = 2.0f;
    return read(to, s)[0] == 1.0f;
}

CASE(pageable_memory) { return seeds_that([] { return uploads(false); }) == SEEDS; }
CASE(pinned_memory_changed_too_early) {
    unsigned right = seeds_that([] { return uploads(true); });
    return 0 < right && right < SEEDS;
}

CASE(memory_is_nan_at_first) {
    void* s = stream();
    return std::isnan(read(memory(N), s)[N - 1]);
}

CASE(pinned_memory_read_too_early) {
    unsigned too_early = 0;
    auto downloads = [&] {
        void *s = stream(), *done = event();
        uint64_t from = memory(N);
        float* to = pinned(N);
        fill(from, 1.0f, s);
        to[N - 1] = 5.0f;
        MUST(cuMemcpyDtoHAsync_v2(to, from, N * sizeof(float), s));
        MUST(cuEventRecord(done, s));
        too_early += std::isnan(to[N - 1]);
        MUST(cuEventSynchronize(done));
        return to[N - 1] == 1.0f;
    };
    return seeds_that(downloads) == SEEDS && too_early > 0;
}

static void fill_too_much() {
    void* s = stream();
    fill(memory(N / 2), 1.0f, s);
    cuStreamSynchronize(s);
}

CASE(write_beyond_memory) { return dies(fill_too_much); }

CASE(write_to_freed_memory) {
    return dies([] {
        void* s = stream();
        uint64_t values = memory(N);
        MUST(cuMemFree_v2(values));
        fill(values, 1.0f, s);
        MUST(cuStreamSynchronize(s));
        MUST(cuDevicePrimaryCtxRelease_v2(0));
    });
}

CASE(copies_beyond_memory) {
    static std::vector<float> values(2 * N);
    return dies([] { cuMemcpyHtoDAsync_v2(memory(N), values.data(), 4 * N + 4, stream()); }) &&
           dies([] { cuMemcpyDtoHAsync_v2(values.data(), memory(N), 4 * N + 4, stream()); }) &&
           dies([] { cuMemcpyDtoHAsync_v2(pinned(N), memory(2 * N), 4 * N + 4, stream()); });
}

// A stream uses memory that another one allocates or frees in its own order.
static bool uses_what_another_allocates(bool waits) {
    void *first = stream(), *second = stream(), *made = event();
    uint64_t values;
    MUST(cuMemAllocAsync(&values, N * sizeof(float), first));
    MUST(cuEventRecord(made, first));
    if (waits) MUST(cuStreamWaitEvent(second, made, 0));
    fill(values, 1.0f, second);
    MUST(cuStreamSynchronize(first));
    return read(values, second)[0] == 1.0f;
}

static bool uses_what_another_frees(bool waits) {
    void *first = stream(), *second = stream(), *used = event();
    uint64_t values, to = memory(N);
    MUST(cuMemAllocAsync(&values, N * sizeof(float), first));
    fill(values, 1.0f, first);
    MUST(cuStreamSynchronize(first));
    MUST(cuMemcpyDtoDAsync_v2(to, values, N * sizeof(float), second));
    MUST(cuEventRecord(used, second));
    if (waits) MUST(cuStreamWaitEvent(first, used, 0));
    MUST(cuMemFreeAsync(values, first));
    return read(to, second)[0] == 1.0f;
}

CASE(pools) {
    int has_pools;
    MUST(cuDeviceGetAttribute(&has_pools, 115, 0));
    return has_pools && seeds_that([] { return uses_what_another_allocates(true); }) == SEEDS &&
           seeds_that([] { return uses_what_another_frees(true); }) == SEEDS;
}

CASE(missing_wait_for_an_allocation) { return goes_wrong([] { return uses_what_another_allocates(false); }); }
CASE(missing_wait_before_memory_is_freed) { return goes_wrong([] { return uses_what_another_frees(false); }); }

CASE(no_name_for_what_is_freed) {
    return dies([] {
        void* s = stream();
        uint64_t values = memory(N);
        MUST(cuMemFreeAsync(values, s));
        cuMemsetD8Async(values, 0, N, s);
    });
}

// As a K80 does.
CASE(no_pools) {
    int has_pools;
    uint64_t values;
    MUST(cuDeviceGetAttribute(&has_pools, 115, 0));
    return !has_pools && RETURNS(801, cuMemAllocAsync(&values, 64, stream()));
}
