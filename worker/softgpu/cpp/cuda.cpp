// A libcuda for tests: a GPU whose memory is the host's.
//
// Streams keep the promises of CUDA and no others. What is enqueued runs late: when somebody waits
// for it, and then in any order that streams and events allow, chosen by a seed. Memory holds NaN when
// it is allocated and when it is freed, and has guard bytes on both sides.
//
//     HW2_SOFTGPU      devices=2 cc=8.0 memory_mb=4096 driver=12040 seed=7 (0: everything in order)
//                      fail_alloc=3 (the third allocation finds no memory)
//                      fail_launch=10 (the tenth launch fails)  lose=20 (and here the device is lost)
//     HW2_SOFTGPU_LOG  a file that gets a line for each launch
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <dlfcn.h>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "soft.h"

typedef int CUresult;
typedef int CUdevice;
typedef uint64_t CUdeviceptr;

struct SoftLaunch { unsigned grid[3], block[3]; unsigned seed; void** args; };

namespace {

enum : CUresult {
    SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_INITIALIZED = 3, NO_DEVICE = 100, INVALID_DEVICE = 101,
    INVALID_IMAGE = 200, INVALID_CONTEXT = 201, INVALID_HANDLE = 400, NOT_FOUND = 500, NOT_READY = 600,
    DEVICE_LOST = 719, LAUNCH_FAILED = 719, CAPTURE_UNSUPPORTED = 900, CAPTURE_INVALIDATED = 901,
};

constexpr size_t GUARD_BYTES = 256;
// Read as a number, a guard is huge: 3.4e38 or, in f64, 1.4e306.
constexpr unsigned char GUARD = 0x7f, POISON = 0xff;
constexpr char MAGIC[] = "software GPU cubin ";

typedef std::function<void()> Work;

// What one record of an event waits for.
struct Record { bool is_done = false; };

struct Task {
    std::string what;
    Work work;
    std::shared_ptr<Record> waits, records;
};

struct Node { std::string what; Work work; std::vector<size_t> after; };
struct Graph { std::vector<Node> nodes; };

struct Capture { Graph graph; std::set<struct Stream*> streams; };

struct Event {
    std::shared_ptr<Record> record = std::make_shared<Record>();
    // While a capture runs: what the event stands for in it.
    std::shared_ptr<Capture> capture;
    std::vector<size_t> captured;
    Event() { record->is_done = true; }
};

struct Stream {
    std::deque<Task> tasks;
    std::shared_ptr<Capture> capture;
    // The nodes of the capture that the stream's next one comes after.
    std::vector<size_t> last;
    bool is_origin = false;
};

struct Allocation { size_t bytes; bool is_host; };
struct Module { void* library; };
struct Function { void (*entry)(const SoftLaunch*); std::string name; std::vector<size_t> arg_sizes; };

struct Settings {
    int devices = 1, major = 8, minor = 0, driver = 11040;
    size_t memory_mb = 4096;
    unsigned seed = 1;
    long fail_alloc = 0, fail_launch = 0, lose = 0;

    Settings() {
        const char* text = getenv("HW2_SOFTGPU");
        std::stringstream words(text ? text : "");
        std::string word;
        while (words >> word) {
            size_t is = word.find('=');
            std::string key = word.substr(0, is), value = is == std::string::npos ? "" : word.substr(is + 1);
            if (key == "devices") devices = atoi(value.c_str());
            else if (key == "cc") sscanf(value.c_str(), "%d.%d", &major, &minor);
            else if (key == "driver") driver = atoi(value.c_str());
            else if (key == "memory_mb") memory_mb = atol(value.c_str());
            else if (key == "seed") seed = atoi(value.c_str());
            else if (key == "fail_alloc") fail_alloc = atol(value.c_str());
            else if (key == "fail_launch") fail_launch = atol(value.c_str());
            else if (key == "lose") lose = atol(value.c_str());
            else {
                fprintf(stderr, "software GPU: no such setting: %s\n", word.c_str());
                abort();
            }
        }
    }
};

std::recursive_mutex mutex;
Settings settings;
std::mt19937 chance(settings.seed);
std::map<uintptr_t, Allocation> allocations;
std::vector<Stream*> streams;
Stream null_stream;
size_t used_bytes;
long allocated, launched;
bool is_lost;
thread_local void* current;
int context;

#define LOCK std::lock_guard<std::recursive_mutex> lock(mutex); if (is_lost) return DEVICE_LOST

[[noreturn]] void die(const std::string& what) {
    fprintf(stderr, "software GPU: %s\n", what.c_str());
    abort();
}

void log(const std::string& what) {
    static FILE* file = getenv("HW2_SOFTGPU_LOG") ? fopen(getenv("HW2_SOFTGPU_LOG"), "a") : nullptr;
    if (file) {
        fprintf(file, "%s\n", what.c_str());
        fflush(file);
    }
}

Stream* stream_of(void* stream) { return stream ? static_cast<Stream*>(stream) : &null_stream; }

std::map<uintptr_t, Allocation>::iterator allocation_of(uintptr_t address) {
    auto after = allocations.upper_bound(address);
    if (after == allocations.begin()) return allocations.end();
    auto found = std::prev(after);
    return address < found->first + found->second.bytes ? found : allocations.end();
}

void check_guards(uintptr_t start, size_t bytes) {
    auto* memory = reinterpret_cast<unsigned char*>(start);
    for (size_t i = 0; i < GUARD_BYTES; i++)
        if (memory[-1 - ptrdiff_t(i)] != GUARD || memory[bytes + i] != GUARD)
            die("something wrote beside an allocation of " + std::to_string(bytes) + " bytes");
}

void check_all_guards() {
    for (const auto& [start, allocation] : allocations)
        if (!allocation.is_host) check_guards(start, allocation.bytes);
}

// The tasks at the head of a stream that may run now.
bool is_ready(const Stream& stream) {
    return !stream.tasks.empty() && (!stream.tasks.front().waits || stream.tasks.front().waits->is_done);
}

// Runs one task of some stream; false if none may run.
bool run_one() {
    std::vector<Stream*> ready;
    if (is_ready(null_stream)) ready.push_back(&null_stream);
    for (Stream* stream : streams)
        if (is_ready(*stream)) ready.push_back(stream);
    if (ready.empty()) return false;
    Stream* stream = ready[settings.seed ? chance() % ready.size() : 0];
    Task task = std::move(stream->tasks.front());
    stream->tasks.pop_front();
    if (task.work) task.work();
    if (task.records) task.records->is_done = true;
    return true;
}

template <class Done> CUresult run_until(Done done) {
    while (!done() && !is_lost)
        if (!run_one()) die("nothing can run: a stream waits for an event that is never recorded");
    return is_lost ? DEVICE_LOST : SUCCESS;
}

CUresult finish(Stream* stream) { return run_until([=] { return stream->tasks.empty(); }); }

CUresult finish_all() {
    CUresult result = run_until([] {
        return null_stream.tasks.empty() &&
               std::all_of(streams.begin(), streams.end(), [](Stream* s) { return s->tasks.empty(); });
    });
    check_all_guards();
    return result;
}

CUresult enqueue(Stream* stream, std::string what, Work work) {
    if (stream->capture) {
        auto& nodes = stream->capture->graph.nodes;
        nodes.push_back({std::move(what), std::move(work), stream->last});
        stream->last = {nodes.size() - 1};
    } else {
        stream->tasks.push_back({std::move(what), std::move(work), nullptr, nullptr});
    }
    return SUCCESS;
}

// The nodes of a graph in any order that their dependencies allow.
void run_graph(const Graph& graph) {
    std::vector<size_t> waiting(graph.nodes.size());
    std::vector<std::vector<size_t>> before(graph.nodes.size());
    std::vector<size_t> ready;
    for (size_t i = 0; i < graph.nodes.size(); i++) {
        waiting[i] = graph.nodes[i].after.size();
        for (size_t other : graph.nodes[i].after) before[other].push_back(i);
        if (waiting[i] == 0) ready.push_back(i);
    }
    while (!ready.empty()) {
        size_t at = settings.seed ? chance() % ready.size() : 0, node = ready[at];
        ready.erase(ready.begin() + at);
        graph.nodes[node].work();
        for (size_t next : before[node])
            if (--waiting[next] == 0) ready.push_back(next);
    }
}

bool is_pinned(const void* pointer) {
    auto found = allocation_of(reinterpret_cast<uintptr_t>(pointer));
    return found != allocations.end() && found->second.is_host;
}

bool is_device(CUdeviceptr pointer, size_t bytes) {
    auto found = allocation_of(pointer);
    return found != allocations.end() && !found->second.is_host && pointer + bytes <= found->first + found->second.bytes;
}

CUresult allocate(CUdeviceptr* pointer, size_t bytes, bool is_host) {
    allocated += !is_host;
    bool is_full = !is_host && used_bytes + bytes > settings.memory_mb << 20;
    if (bytes == 0) return INVALID_VALUE;
    if (is_full || (!is_host && allocated == settings.fail_alloc)) return OUT_OF_MEMORY;
    size_t rounded = (bytes + GUARD_BYTES - 1) / GUARD_BYTES * GUARD_BYTES;
    auto* memory = static_cast<unsigned char*>(aligned_alloc(GUARD_BYTES, rounded + 2 * GUARD_BYTES));
    if (!memory) return OUT_OF_MEMORY;
    memset(memory, GUARD, GUARD_BYTES);
    memset(memory + GUARD_BYTES, POISON, bytes);
    memset(memory + GUARD_BYTES + bytes, GUARD, rounded - bytes + GUARD_BYTES);
    *pointer = reinterpret_cast<CUdeviceptr>(memory + GUARD_BYTES);
    allocations[*pointer] = {bytes, is_host};
    used_bytes += is_host ? 0 : bytes;
    return SUCCESS;
}

CUresult release(CUdeviceptr pointer, bool is_host) {
    auto found = allocations.find(pointer);
    if (found == allocations.end() || found->second.is_host != is_host) return INVALID_VALUE;
    finish_all();
    check_guards(pointer, found->second.bytes);
    memset(reinterpret_cast<void*>(pointer), POISON, found->second.bytes);
    used_bytes -= is_host ? 0 : found->second.bytes;
    free(reinterpret_cast<unsigned char*>(pointer) - GUARD_BYTES);
    allocations.erase(found);
    return SUCCESS;
}

void put(const char* text, char* to, int len) { snprintf(to, len, "%s", text); }

}  // namespace

extern "C" {

void soft_enqueue(void* stream, const char* what, Work* work) {
    std::lock_guard<std::recursive_mutex> lock(mutex);
    std::string name = what;
    Work copy = *work;
    enqueue(stream_of(stream), name, [=] { log(name); copy(); });
}

void soft_check(const void* pointer, size_t bytes, const char* what) {
    std::lock_guard<std::recursive_mutex> lock(mutex);
    if (!is_device(reinterpret_cast<CUdeviceptr>(pointer), bytes)) die(std::string(what) + " is no device memory");
}

// For tests of one process: another order from here on.
void soft_seed(unsigned seed) {
    std::lock_guard<std::recursive_mutex> lock(mutex);
    settings.seed = seed;
    chance.seed(seed);
}

CUresult cuInit(unsigned) { return settings.devices > 0 ? SUCCESS : NO_DEVICE; }

CUresult cuDriverGetVersion(int* version) {
    *version = settings.driver;
    return SUCCESS;
}

CUresult cuDeviceGetCount(int* count) {
    *count = settings.devices;
    return SUCCESS;
}

CUresult cuDeviceGet(CUdevice* device, int ordinal) {
    *device = ordinal;
    return ordinal >= 0 && ordinal < settings.devices ? SUCCESS : INVALID_DEVICE;
}

CUresult cuDeviceGetName(char* name, int len, CUdevice) {
    put("Software GPU", name, len);
    return SUCCESS;
}

CUresult cuDeviceGetUuid_v2(char* uuid, CUdevice device) {
    memset(uuid, 0, 16);
    uuid[15] = char(device);
    return SUCCESS;
}

CUresult cuDeviceGetPCIBusId(char* id, int len, CUdevice device) {
    put(("0000:0" + std::to_string(device) + ":00.0").c_str(), id, len);
    return SUCCESS;
}

CUresult cuDeviceTotalMem_v2(size_t* bytes, CUdevice) {
    *bytes = settings.memory_mb << 20;
    return SUCCESS;
}

CUresult cuMemGetInfo_v2(size_t* free, size_t* total) {
    LOCK;
    *total = settings.memory_mb << 20;
    *free = *total - used_bytes;
    return SUCCESS;
}

CUresult cuDeviceGetAttribute(int* value, int attribute, CUdevice) {
    switch (attribute) {
        case 1: *value = 1024; break;                // threads of a block
        case 10: *value = 32; break;                 // threads of a warp
        case 16: *value = 2; break;                  // multiprocessors
        case 38: *value = 4 << 20; break;            // bytes of L2
        case 75: *value = settings.major; break;
        case 76: *value = settings.minor; break;
        case 115: *value = 0; break;                 // memory pools
        default: *value = 0;
    }
    return SUCCESS;
}

CUresult cuDevicePrimaryCtxRetain(void** to, CUdevice) {
    LOCK;
    *to = &context;
    return SUCCESS;
}

CUresult cuDevicePrimaryCtxRelease_v2(CUdevice) { return SUCCESS; }

CUresult cuCtxSetCurrent(void* to) {
    current = to;
    return SUCCESS;
}

CUresult cuCtxGetCurrent(void** to) {
    *to = current;
    return SUCCESS;
}

CUresult cuCtxSynchronize() {
    LOCK;
    return finish_all();
}

CUresult cuStreamCreate(void** stream, unsigned) {
    LOCK;
    streams.push_back(new Stream);
    *stream = streams.back();
    return SUCCESS;
}

CUresult cuStreamDestroy_v2(void* stream) {
    LOCK;
    CUresult result = finish(stream_of(stream));
    streams.erase(std::find(streams.begin(), streams.end(), stream_of(stream)));
    delete stream_of(stream);
    return result;
}

CUresult cuStreamSynchronize(void* stream) {
    LOCK;
    if (stream_of(stream)->capture) return CAPTURE_UNSUPPORTED;
    CUresult result = finish(stream_of(stream));
    check_all_guards();
    return result;
}

CUresult cuStreamQuery(void* stream) {
    LOCK;
    return stream_of(stream)->tasks.empty() ? SUCCESS : NOT_READY;
}

CUresult cuEventCreate(void** event, unsigned) {
    *event = new Event;
    return SUCCESS;
}

CUresult cuEventDestroy_v2(void* event) {
    delete static_cast<Event*>(event);
    return SUCCESS;
}

CUresult cuEventRecord(void* pointer, void* stream_pointer) {
    LOCK;
    auto* event = static_cast<Event*>(pointer);
    Stream* stream = stream_of(stream_pointer);
    if (stream->capture) {
        event->capture = stream->capture;
        event->captured = stream->last;
        return SUCCESS;
    }
    event->capture = nullptr;
    event->record = std::make_shared<Record>();
    stream->tasks.push_back({"record", nullptr, nullptr, event->record});
    return SUCCESS;
}

CUresult cuStreamWaitEvent(void* stream_pointer, void* pointer, unsigned) {
    LOCK;
    auto* event = static_cast<Event*>(pointer);
    Stream* stream = stream_of(stream_pointer);
    if (event->capture) {
        if (!stream->capture) {
            stream->capture = event->capture;
            stream->capture->streams.insert(stream);
            stream->last.clear();
        } else if (stream->capture != event->capture) {
            return CAPTURE_INVALIDATED;
        }
        stream->last.insert(stream->last.end(), event->captured.begin(), event->captured.end());
        return SUCCESS;
    }
    if (stream->capture) return CAPTURE_INVALIDATED;
    stream->tasks.push_back({"wait", nullptr, event->record, nullptr});
    return SUCCESS;
}

CUresult cuEventSynchronize(void* event) {
    LOCK;
    auto record = static_cast<Event*>(event)->record;
    return run_until([=] { return record->is_done; });
}

CUresult cuEventQuery(void* event) {
    LOCK;
    return static_cast<Event*>(event)->record->is_done ? SUCCESS : NOT_READY;
}

CUresult cuEventElapsedTime(float* ms, void*, void*) {
    *ms = 0.001f;
    return SUCCESS;
}

CUresult cuMemAlloc_v2(CUdeviceptr* pointer, size_t bytes) {
    LOCK;
    return allocate(pointer, bytes, false);
}

CUresult cuMemFree_v2(CUdeviceptr pointer) {
    LOCK;
    return release(pointer, false);
}

CUresult cuMemHostAlloc(void** pointer, size_t bytes, unsigned) {
    LOCK;
    return allocate(reinterpret_cast<CUdeviceptr*>(pointer), bytes, true);
}

CUresult cuMemFreeHost(void* pointer) {
    LOCK;
    return release(reinterpret_cast<CUdeviceptr>(pointer), true);
}

CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void* from, size_t bytes, void* stream) {
    LOCK;
    if (!is_device(to, bytes)) die("an upload beyond device memory");
    if (is_pinned(from)) return enqueue(stream_of(stream), "upload", [=] { memcpy(reinterpret_cast<void*>(to), from, bytes); });
    // Pageable memory is copied before the call returns.
    auto copy = std::make_shared<std::vector<char>>(static_cast<const char*>(from), static_cast<const char*>(from) + bytes);
    return enqueue(stream_of(stream), "upload", [=] { memcpy(reinterpret_cast<void*>(to), copy->data(), bytes); });
}

CUresult cuMemcpyDtoHAsync_v2(void* to, CUdeviceptr from, size_t bytes, void* stream) {
    LOCK;
    if (!is_device(from, bytes)) die("a download from beyond device memory");
    enqueue(stream_of(stream), "download", [=] { memcpy(to, reinterpret_cast<void*>(from), bytes); });
    return is_pinned(to) || stream_of(stream)->capture ? SUCCESS : finish(stream_of(stream));
}

CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes, void* stream) {
    LOCK;
    if (!is_device(from, bytes) || !is_device(to, bytes)) die("a copy beyond device memory");
    return enqueue(stream_of(stream), "copy", [=] { memmove(reinterpret_cast<void*>(to), reinterpret_cast<void*>(from), bytes); });
}

CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t bytes, void* stream) {
    LOCK;
    if (!is_device(to, bytes)) die("a fill beyond device memory");
    return enqueue(stream_of(stream), "fill", [=] { memset(reinterpret_cast<void*>(to), value, bytes); });
}

CUresult cuModuleLoadData(void** module, const void* image) {
    LOCK;
    const char* text = static_cast<const char*>(image);
    if (strncmp(text, MAGIC, strlen(MAGIC)) != 0) return INVALID_IMAGE;
    void* library = dlopen(text + strlen(MAGIC), RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        fprintf(stderr, "software GPU: %s\n", dlerror());
        return INVALID_IMAGE;
    }
    *module = new Module{library};
    return SUCCESS;
}

CUresult cuModuleUnload(void* module) {
    LOCK;
    finish_all();
    dlclose(static_cast<Module*>(module)->library);
    delete static_cast<Module*>(module);
    return SUCCESS;
}

CUresult cuModuleGetFunction(void** function, void* module, const char* name) {
    LOCK;
    void* library = static_cast<Module*>(module)->library;
    std::string symbol = std::string("soft_") + name;
    auto entry = reinterpret_cast<void (*)(const SoftLaunch*)>(dlsym(library, symbol.c_str()));
    auto sizes = reinterpret_cast<size_t (*)(size_t*)>(dlsym(library, (symbol + "_args").c_str()));
    if (!entry || !sizes) return NOT_FOUND;
    std::vector<size_t> arg_sizes(sizes(nullptr));
    sizes(arg_sizes.data());
    *function = new Function{entry, name, arg_sizes};
    return SUCCESS;
}

CUresult cuFuncSetAttribute(void*, int, int) { return SUCCESS; }

CUresult cuLaunchKernel(void* pointer, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                        unsigned shared, void* stream, void** params, void** extra) {
    LOCK;
    auto* function = static_cast<Function*>(pointer);
    if (!gx || !gy || !gz || !bx || !by || !bz || gy > 65535 || gz > 65535 || bx * by * bz > 1024 || bz > 64 || shared || extra)
        return INVALID_VALUE;
    launched++;
    if (launched == settings.fail_launch) return LAUNCH_FAILED;
    // The driver copies the arguments before the call returns.
    auto args = std::make_shared<std::vector<std::vector<char>>>();
    for (size_t i = 0; i < function->arg_sizes.size(); i++) {
        auto* arg = static_cast<const char*>(params[i]);
        args->emplace_back(arg, arg + function->arg_sizes[i]);
    }
    std::ostringstream what;
    what << function->name << " " << gx << "x" << gy << "x" << gz << " " << bx << "x" << by << "x" << bz;
    std::string name = what.str();
    long number = launched;
    return enqueue(stream_of(stream), name, [=] {
        if (number == settings.lose) is_lost = true;
        if (is_lost) return;
        log(name);
        std::vector<void*> pointers;
        for (auto& arg : *args) pointers.push_back(arg.data());
        SoftLaunch launch{{gx, gy, gz}, {bx, by, bz}, settings.seed ? unsigned(chance()) | 1 : 0, pointers.data()};
        function->entry(&launch);
    });
}

CUresult cuStreamBeginCapture_v2(void* pointer, int) {
    LOCK;
    Stream* stream = stream_of(pointer);
    if (!pointer || stream->capture) return CAPTURE_UNSUPPORTED;
    stream->capture = std::make_shared<Capture>();
    stream->capture->streams.insert(stream);
    stream->last.clear();
    stream->is_origin = true;
    return SUCCESS;
}

CUresult cuStreamEndCapture(void* pointer, void** graph) {
    LOCK;
    Stream* origin = stream_of(pointer);
    if (!origin->capture || !origin->is_origin) return CAPTURE_INVALIDATED;
    auto capture = origin->capture;
    // What another stream did must be waited for: all its last nodes come before one of the origin's.
    std::vector<bool> is_before(capture->graph.nodes.size());
    std::vector<size_t> open(origin->last);
    while (!open.empty()) {
        size_t node = open.back();
        open.pop_back();
        if (is_before[node]) continue;
        is_before[node] = true;
        auto& after = capture->graph.nodes[node].after;
        open.insert(open.end(), after.begin(), after.end());
    }
    for (Stream* stream : capture->streams) {
        stream->capture = nullptr;
        stream->is_origin = false;
        stream->last.clear();
    }
    if (!std::all_of(is_before.begin(), is_before.end(), [](bool is) { return is; })) return CAPTURE_INVALIDATED;
    *graph = new Graph(capture->graph);
    return SUCCESS;
}

CUresult cuStreamIsCapturing(void* stream, int* status) {
    LOCK;
    *status = stream_of(stream)->capture != nullptr;
    return SUCCESS;
}

CUresult cuGraphInstantiateWithFlags(void** executable, void* graph, unsigned long long) {
    LOCK;
    *executable = new Graph(*static_cast<Graph*>(graph));
    return SUCCESS;
}

CUresult cuGraphLaunch(void* executable, void* stream) {
    LOCK;
    auto graph = std::make_shared<Graph>(*static_cast<Graph*>(executable));
    return enqueue(stream_of(stream), "graph", [=] { run_graph(*graph); });
}

CUresult cuGraphUpload(void*, void*) { return SUCCESS; }

CUresult cuGraphExecDestroy(void* executable) {
    LOCK;
    finish_all();
    delete static_cast<Graph*>(executable);
    return SUCCESS;
}

CUresult cuGraphDestroy(void* graph) {
    delete static_cast<Graph*>(graph);
    return SUCCESS;
}

CUresult cuGetErrorName(CUresult error, const char** name) {
    switch (error) {
        case SUCCESS: *name = "CUDA_SUCCESS"; break;
        case INVALID_VALUE: *name = "CUDA_ERROR_INVALID_VALUE"; break;
        case OUT_OF_MEMORY: *name = "CUDA_ERROR_OUT_OF_MEMORY"; break;
        case NO_DEVICE: *name = "CUDA_ERROR_NO_DEVICE"; break;
        case INVALID_DEVICE: *name = "CUDA_ERROR_INVALID_DEVICE"; break;
        case INVALID_IMAGE: *name = "CUDA_ERROR_INVALID_IMAGE"; break;
        case NOT_FOUND: *name = "CUDA_ERROR_NOT_FOUND"; break;
        case DEVICE_LOST: *name = "CUDA_ERROR_LAUNCH_FAILED"; break;
        default: *name = "CUDA_ERROR_OF_THE_SOFTWARE_GPU";
    }
    return SUCCESS;
}

CUresult cuGetErrorString(CUresult error, const char** text) {
    switch (error) {
        case OUT_OF_MEMORY: *text = "out of memory"; break;
        case INVALID_DEVICE: *text = "invalid device ordinal"; break;
        case DEVICE_LOST: *text = "unspecified launch failure"; break;
        default: *text = "an error of the software GPU";
    }
    return SUCCESS;
}

}  // extern "C"
