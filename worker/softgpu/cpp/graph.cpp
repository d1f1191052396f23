// Captures, and the graphs that they become.
#include <algorithm>

#include "driver.h"

namespace {

struct Graph { Context* context; Nodes nodes; };

struct Executable {
    Context* context;
    std::shared_ptr<Nodes> nodes;
    // A graph does not begin before its launch of before has ended.
    std::shared_ptr<Record> launched = std::make_shared<Record>(Record{true});
};

// Those that are not over.
std::set<std::shared_ptr<Capture>> captures;
std::set<Graph*> graphs;
std::set<Executable*> executables;

// The nodes of a graph in any order that their dependencies allow, as long as the GPU works.
void run(const Nodes& nodes, const Context* context) {
    std::vector<size_t> waiting(nodes.size());
    std::vector<std::vector<size_t>> before(nodes.size());
    std::vector<size_t> ready;
    for (size_t i = 0; i < nodes.size(); i++) {
        waiting[i] = nodes[i].after.size();
        for (size_t other : nodes[i].after) before[other].push_back(i);
        if (waiting[i] == 0) ready.push_back(i);
    }
    while (!ready.empty() && !context->error) {
        size_t at = settings.seed ? chance() % ready.size() : 0, node = ready[at];
        ready.erase(ready.begin() + at);
        nodes[node].work();
        for (size_t next : before[node])
            if (--waiting[next] == 0) ready.push_back(next);
    }
}

// Whether all nodes come before one of `last`: the origin must wait for what other streams did.
bool are_joined(const Nodes& nodes, std::vector<size_t> open) {
    std::vector<bool> is_before(nodes.size());
    while (!open.empty()) {
        size_t node = open.back();
        open.pop_back();
        if (is_before[node]) continue;
        is_before[node] = true;
        open.insert(open.end(), nodes[node].after.begin(), nodes[node].after.end());
    }
    return std::all_of(is_before.begin(), is_before.end(), [](bool is) { return is; });
}

void end(const std::shared_ptr<Capture>& capture) {
    for (Stream* stream : capture->streams) {
        stream->capture = nullptr;
        stream->is_origin = false;
        stream->last.clear();
    }
    capture->is_over = true;
    captures.erase(capture);
}

}  // namespace

CUresult invalidate(Capture& capture, CUresult result) {
    capture.is_invalid = true;
    return result;
}

void leave_capture(Stream* stream) {
    auto capture = stream->capture;
    capture->is_invalid = true;
    if (stream->is_origin) return end(capture);
    capture->streams.erase(stream);
    stream->capture = nullptr;
}

CUresult not_captured() {
    CUresult result = SUCCESS;
    for (const auto& capture : captures) {
        bool is_ours = capture->thread == std::this_thread::get_id();
        if (capture->mode == GLOBAL || (is_ours && capture->mode == THREAD_LOCAL))
            result = invalidate(*capture, CAPTURE_UNSUPPORTED);
    }
    return result;
}

void forget_graphs(Context* context) {
    for (auto at = captures.begin(); at != captures.end();) {
        auto capture = *at++;
        if ((*capture->streams.begin())->context == context) end(capture);
    }
    forget(graphs, context);
    forget(executables, context);
}

EXPORT CUresult cuStreamBeginCapture_v2(void* handle, int mode) {
    ENTER;
    Stream* stream;
    TRY(find_stream(handle, stream));
    if (mode < GLOBAL || mode > RELAXED) return INVALID_VALUE;
    if (!handle || stream->capture) return CAPTURE_UNSUPPORTED;
    stream->capture = std::make_shared<Capture>();
    stream->capture->mode = CaptureMode(mode);
    stream->capture->thread = std::this_thread::get_id();
    stream->capture->streams.insert(stream);
    captures.insert(stream->capture);
    stream->last.clear();
    stream->is_origin = true;
    return SUCCESS;
}

EXPORT CUresult cuStreamEndCapture(void* handle, void** to) {
    ENTER;
    *to = nullptr;
    Stream* origin;
    CUresult result = find_stream(handle, origin);
    if (result != SUCCESS && result != CAPTURE_INVALIDATED) return result;
    if (!origin->capture) return INVALID_VALUE;
    auto capture = origin->capture;
    if (!origin->is_origin) return invalidate(*capture, CAPTURE_UNMATCHED);
    bool is_joined = are_joined(capture->nodes, origin->last);
    end(capture);
    if (capture->is_invalid) return CAPTURE_INVALIDATED;
    if (!is_joined) return CAPTURE_UNJOINED;
    auto* graph = new Graph{current, capture->nodes};
    graphs.insert(graph);
    *to = graph;
    return SUCCESS;
}

EXPORT CUresult cuStreamIsCapturing(void* handle, int* status) {
    ENTER;
    enum { NONE = 0, ACTIVE = 1, INVALIDATED = 2 };
    Stream* stream;
    CUresult result = find_stream(handle, stream);
    if (result != SUCCESS && result != CAPTURE_INVALIDATED) return result;
    *status = result ? INVALIDATED : stream->capture ? ACTIVE : NONE;
    return SUCCESS;
}

EXPORT CUresult cuGraphInstantiateWithFlags(void** to, void* handle, unsigned long long) {
    ENTER;
    auto* graph = static_cast<Graph*>(handle);
    if (!graphs.count(graph)) return INVALID_VALUE;
    if (!settings.has_graphs) return NOT_SUPPORTED;
    auto* executable = new Executable{graph->context, std::make_shared<Nodes>(graph->nodes)};
    executables.insert(executable);
    *to = executable;
    return SUCCESS;
}

EXPORT CUresult cuGraphLaunch(void* handle, void* stream_handle) {
    ENTER;
    auto* executable = static_cast<Executable*>(handle);
    Stream* stream;
    TRY(find_stream(stream_handle, stream));
    if (!executables.count(executable)) return INVALID_VALUE;
    if (executable->context != current) return INVALID_HANDLE;
    auto nodes = executable->nodes;
    auto at_launch = [=] {
        for (const Node& node : *nodes)
            if (node.at_launch) node.at_launch();
    };
    auto work = [nodes, context = current] { run(*nodes, context); };
    if (stream->capture) return enqueue(stream, "graph", work, at_launch);
    at_launch();
    auto before = executable->launched;
    executable->launched = std::make_shared<Record>();
    stream->tasks.push_back({"graph", work, before, executable->launched});
    return SUCCESS;
}

EXPORT CUresult cuGraphUpload(void* handle, void* stream_handle) {
    ENTER;
    Stream* stream;
    TRY(find_stream(stream_handle, stream));
    return executables.count(static_cast<Executable*>(handle)) ? SUCCESS : INVALID_VALUE;
}

// A launch that is under way goes on with nodes of its own.
EXPORT CUresult cuGraphExecDestroy(void* handle) {
    ENTER;
    auto* executable = static_cast<Executable*>(handle);
    if (!executables.erase(executable)) return INVALID_VALUE;
    delete executable;
    return SUCCESS;
}

EXPORT CUresult cuGraphDestroy(void* handle) {
    ENTER;
    auto* graph = static_cast<Graph*>(handle);
    if (!graphs.erase(graph)) return INVALID_VALUE;
    delete graph;
    return SUCCESS;
}
