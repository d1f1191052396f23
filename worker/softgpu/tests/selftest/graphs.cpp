// Captures and graphs.
#include "selftest.h"

// As `copies` of streams, in a graph that is launched twice.
static bool replays(bool waits) {
    void *first = stream(), *second = stream(), *forked = event(), *filled = event(), *joined = event();
    uint64_t from = memory(N), to = memory(N);
    float value = 3.0f;
    int n = N;
    void* executable = graph(first, [&] {
        MUST(cuEventRecord(forked, first));
        MUST(cuStreamWaitEvent(second, forked, 0));
        launch("fill", first, {&from, &value, &n});
        MUST(cuEventRecord(filled, first));
        if (waits) MUST(cuStreamWaitEvent(second, filled, 0));
        MUST(cuMemcpyDtoDAsync_v2(to, from, N * sizeof(float), second));
        MUST(cuEventRecord(joined, second));
        MUST(cuStreamWaitEvent(first, joined, 0));
    });
    value = 5.0f;  // too late: the graph has its own
    bool is_right = true;
    for (int i = 0; i < 2; i++) {
        MUST(cuMemsetD8Async(from, 0, N * sizeof(float), first));
        MUST(cuGraphLaunch(executable, first));
        is_right = is_right && read(to, first)[0] == 3.0f;
    }
    return is_right;
}

CASE(graphs) { return seeds_that([] { return replays(true); }) == SEEDS; }
CASE(missing_wait_in_a_graph) { return seeds_that([] { return replays(false); }) < SEEDS; }

// Whether `call` returns `result` while a stream captures, and spoils the capture.
static bool spoils(int result, const std::function<int(void*)>& call, int mode = 1) {
    void *s = stream(), *graph;
    uint64_t values = memory(N);
    int status;
    MUST(cuStreamBeginCapture_v2(s, mode));
    bool is_refused = RETURNS(result, call(s));
    MUST(cuStreamIsCapturing(s, &status));
    return is_refused && RETURNS(2, status) && RETURNS(901, cuMemsetD8Async(values, 0, 4, s)) &&
           RETURNS(901, cuStreamEndCapture(s, &graph)) && !graph && RETURNS(0, cuMemsetD8Async(values, 0, 4, s));
}

CASE(what_a_capture_refuses) {
    uint64_t values = memory(N), made;
    void *captured = event(), *outside = event(), *other = stream();
    MUST(cuEventRecord(outside, other));
    auto record = [=](void* s) { return MUST(cuEventRecord(captured, s)), captured; };
    return spoils(900, [&](void*) { return cuMemAlloc_v2(&made, 64); }) &&
           spoils(900, [=](void*) { return cuMemFree_v2(values); }) &&
           spoils(900, [&](void* s) { return cuMemAllocAsync(&made, 64, s); }) &&
           spoils(900, [](void* s) { return cuStreamSynchronize(s); }) &&
           spoils(900, [](void*) { return cuCtxSynchronize(); }) &&
           spoils(907, [=](void* s) { return cuEventSynchronize(record(s)); }) &&
           spoils(907, [=](void* s) { return cuEventQuery(record(s)); }) &&
           spoils(905, [=](void* s) { return cuStreamWaitEvent(s, outside, 0); });
}

// In relaxed mode a capture does not mind what does not touch its stream.
CASE(what_a_relaxed_capture_allows) {
    void *s = stream(), *graph;
    uint64_t made;
    MUST(cuStreamBeginCapture_v2(s, 2));
    bool is_allowed = RETURNS(0, cuMemAlloc_v2(&made, 64)) && RETURNS(0, cuCtxSynchronize());
    return is_allowed && RETURNS(0, cuStreamEndCapture(s, &graph));
}

CASE(captures_that_do_not_end_well) {
    void *first = stream(), *second = stream(), *forked = event(), *graph;
    uint64_t values = memory(N);
    auto fork = [=] {
        MUST(cuStreamBeginCapture_v2(first, 1));
        MUST(cuEventRecord(forked, first));
        MUST(cuStreamWaitEvent(second, forked, 0));
        MUST(cuMemsetD8Async(values, 0, 4, second));
    };
    fork();
    if (!RETURNS(904, cuStreamEndCapture(first, &graph))) return false;
    fork();
    if (!RETURNS(903, cuStreamEndCapture(second, &graph))) return false;
    // The event stands for a place in a capture that is over.
    return RETURNS(901, cuStreamEndCapture(first, &graph)) && RETURNS(907, cuStreamWaitEvent(second, forked, 0));
}

CASE(a_stream_that_goes_while_it_captures) {
    void *origin = stream(), *other = stream(), *forked = event(), *graph;
    MUST(cuStreamBeginCapture_v2(origin, 0));
    MUST(cuEventRecord(forked, origin));
    MUST(cuStreamWaitEvent(other, forked, 0));
    MUST(cuStreamDestroy_v2(other));
    if (!RETURNS(901, cuStreamEndCapture(origin, &graph))) return false;
    MUST(cuStreamBeginCapture_v2(origin, 0));
    MUST(cuStreamDestroy_v2(origin));
    // No capture is left that could mind.
    return RETURNS(0, cuCtxSynchronize());
}

CASE(a_graph_reads_host_memory_when_it_runs) {
    void* s = stream();
    uint64_t to = memory(N);
    std::vector<float> values(N, 1.0f);
    void* uploads = graph(s, [&] { upload(to, values, s); });
    values.assign(N, 2.0f);
    MUST(cuGraphLaunch(uploads, s));
    return read(to, s)[0] == 2.0f;
}

// The second launch begins when the first one has ended, in whatever streams they are.
static bool takes_turns() {
    void *first = stream(), *second = stream();
    uint64_t from = memory(N), to = memory(N);
    void* moves = graph(first, [=] {
        MUST(cuMemcpyDtoDAsync_v2(to, from, N * sizeof(float), first));
        fill(from, 2.0f, first);
    });
    fill(from, 1.0f, first);
    MUST(cuGraphLaunch(moves, first));
    MUST(cuGraphLaunch(moves, second));
    return read(to, second)[0] == 2.0f;
}

CASE(launches_of_a_graph_take_turns) { return seeds_that(takes_turns) == SEEDS; }

CASE(a_download_of_a_graph) {
    void* s = stream();
    uint64_t from = memory(N);
    float* to = pinned(N);
    fill(from, 1.0f, s);
    void* downloads = graph(s, [=] { MUST(cuMemcpyDtoHAsync_v2(to, from, N * sizeof(float), s)); });
    to[0] = 5.0f;
    MUST(cuGraphLaunch(downloads, s));
    bool is_nan = std::isnan(to[0]);
    MUST(cuStreamSynchronize(s));
    return is_nan && to[0] == 1.0f;
}
