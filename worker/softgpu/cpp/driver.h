// What the files of libcuda share: its state, and what they ask of each other.
#pragma once
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "launch.h"
#include "soft.h"

typedef int CUresult;
typedef int CUdevice;
typedef uint64_t CUdeviceptr;

enum : CUresult {
    SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_INITIALIZED = 3, NO_DEVICE = 100, INVALID_DEVICE = 101,
    INVALID_IMAGE = 200, INVALID_CONTEXT = 201, NO_BINARY_FOR_GPU = 209, INVALID_HANDLE = 400, NOT_FOUND = 500,
    NOT_READY = 600, LAUNCH_OUT_OF_RESOURCES = 701, CONTEXT_IS_DESTROYED = 709, LAUNCH_FAILED = 719,
    NOT_SUPPORTED = 801, CAPTURE_UNSUPPORTED = 900, CAPTURE_INVALIDATED = 901, CAPTURE_MERGE = 902,
    CAPTURE_UNMATCHED = 903, CAPTURE_UNJOINED = 904, CAPTURE_ISOLATION = 905, CAPTURED_EVENT = 907,
};

struct Settings {
    int devices = 1, major = 8, minor = 0, driver = 11040;
    // -1: as a real driver for that GPU has it.
    int pools = -1;
    bool has_graphs = true;
    size_t memory_mb = 4096;
    unsigned seed = 1;
    long fail_alloc = 0, fail_launch = 0, lose = 0, hang = 0;
    CUresult fail_with = LAUNCH_FAILED;
    Settings();
    bool has_pools() const { return pools < 0 ? driver >= 11020 && major >= 6 : pools > 0; }
};

typedef std::function<void()> Work;

// What one record of an event waits for.
struct Record { bool is_done = false; };

struct Task {
    std::string what;
    Work work;
    std::shared_ptr<Record> waits, records;
};

// A launch in a graph, the nodes that come before it, and what happens when the graph is launched.
struct Node { std::string what; Work work; std::vector<size_t> after; Work at_launch; };
typedef std::vector<Node> Nodes;

enum CaptureMode { GLOBAL = 0, THREAD_LOCAL = 1, RELAXED = 2 };

struct Capture {
    Nodes nodes;
    std::set<struct Stream*> streams;
    CaptureMode mode;
    std::thread::id thread;
    bool is_invalid = false, is_over = false;
};

struct Stream {
    struct Context* context;
    std::deque<Task> tasks;
    std::shared_ptr<Capture> capture;
    // The nodes of the capture that the stream's next one comes after.
    std::vector<size_t> last;
    bool is_origin = false;
};

struct Event {
    Context* context;
    bool has_time;
    // None before the first time.
    std::shared_ptr<Record> record;
    // What the event stands for in a capture, if it was last recorded in one.
    std::shared_ptr<Capture> capture;
    std::vector<size_t> captured;
};

// The primary context of a GPU.
struct Context {
    CUdevice device;
    int retained = 0;
    // What every call returns once the GPU has failed.
    CUresult error = SUCCESS;
    size_t used_bytes = 0;
    Stream null_stream;
};

extern std::recursive_mutex mutex;
extern Settings settings;
extern std::mt19937 chance;
extern thread_local Context* current;
extern std::deque<Context> contexts;
extern std::set<Stream*> streams;

// settings.cpp
[[noreturn]] void die(const std::string& what);
void log(const std::string& what);

// device.cpp: what a call that needs the current context must return at once.
CUresult unusable();
// Begins a call that needs the current context.
#define ENTER                                          \
    std::lock_guard<std::recursive_mutex> lock(mutex); \
    if (CUresult problem = unusable()) return problem
// Ends a call with what `call` returns, unless it is success.
#define TRY(call) \
    if (CUresult problem = call) return problem

// stream.cpp
// The stream that a call names, for new work of the current context.
CUresult find_stream(void* handle, Stream*& stream);
// `at_launch` is for a graph that the work becomes a part of.
CUresult enqueue(Stream* stream, std::string what, Work work, Work at_launch = nullptr);
CUresult finish(Stream* stream);
// All of the current context.
CUresult finish_all();
bool is_idle();
// The GPU fails: what waits in its streams is never done.
void lose(Context* context, CUresult error);

// graph.cpp
// For a call that no capture may see: it ends those that do.
CUresult not_captured();
CUresult invalidate(Capture& capture, CUresult result);
// Takes a stream that ends out of its capture.
void leave_capture(Stream* stream);

// memory.cpp
bool is_device(const Context* context, CUdeviceptr pointer, size_t bytes);
void check_all_guards();
// Gives back what was freed and is no longer needed; nothing may run.
void reclaim();

// What belongs to a context that ends; nothing of it runs any more.
void forget_streams(Context* context);
void forget_graphs(Context* context);
void forget_modules(Context* context);
void forget_memory(Context* context);

// Takes those of a context out of `all` and deletes them.
template <class T> void forget(std::set<T*>& all, const Context* context) {
    for (auto at = all.begin(); at != all.end();) {
        T* one = *at;
        at = one->context == context ? all.erase(at) : std::next(at);
        if (one->context == context) delete one;
    }
}
