// Streams and events.
#include "selftest.h"

// One stream fills, another one copies.
static bool copies(bool waits) {
    void *first = stream(), *second = stream(), *filled = event();
    uint64_t from = memory(N), to = memory(N);
    fill(from, 3.0f, first);
    MUST(cuEventRecord(filled, first));
    if (waits) MUST(cuStreamWaitEvent(second, filled, 0));
    MUST(cuMemcpyDtoDAsync_v2(to, from, N * sizeof(float), second));
    return read(to, second)[0] == 3.0f;
}

CASE(events) { return seeds_that([] { return copies(true); }) == SEEDS; }
CASE(missing_wait) { return seeds_that([] { return copies(false); }) < SEEDS; }

CASE(a_stream_that_is_gone) {
    void* s = stream();
    MUST(cuStreamDestroy_v2(s));
    return RETURNS(400, cuStreamSynchronize(s)) && RETURNS(400, cuMemsetD8Async(memory(N), 0, N, s));
}
