// Memory of the GPUs and pinned memory of the host, and copies between them.
//
// Freed memory is kept for a while, full of NaN, so that who reads or writes it is found.
#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "driver.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(start, bytes) static_cast<void>(0)
#define ASAN_UNPOISON_MEMORY_REGION(start, bytes) static_cast<void>(0)
#endif

namespace {

constexpr size_t GUARD_BYTES = 256;
// Read as a number, a guard is huge: 3.4e38 or, in f64, 1.4e306.
constexpr unsigned char GUARD = 0x7f, POISON = 0xff;
constexpr size_t GRAVES_BYTES = 64 << 20;

struct Allocation { Context* context; size_t bytes; bool is_host; };

// Memory that was freed; its poison is there once its stream has come to that.
struct Grave { unsigned char* start; size_t bytes; bool is_poisoned; };

std::map<uintptr_t, Allocation> allocations;
std::deque<std::shared_ptr<Grave>> graves;
size_t graves_bytes;
long allocated;

typedef std::map<uintptr_t, Allocation>::iterator Found;

Found allocation_of(uintptr_t address) {
    auto after = allocations.upper_bound(address);
    if (after == allocations.begin()) return allocations.end();
    auto found = std::prev(after);
    return address < found->first + found->second.bytes ? found : allocations.end();
}

__attribute__((no_sanitize("address"))) bool holds(const unsigned char* from, size_t bytes, unsigned char value) {
    for (size_t i = 0; i < bytes; i++)
        if (from[i] != value) return false;
    return true;
}

void check_guards(const unsigned char* memory, size_t bytes) {
    if (!holds(memory - GUARD_BYTES, GUARD_BYTES, GUARD) || !holds(memory + bytes, GUARD_BYTES, GUARD))
        die("something wrote beside an allocation of " + std::to_string(bytes) + " bytes");
}

size_t rounded(size_t bytes) { return (bytes + GUARD_BYTES - 1) / GUARD_BYTES * GUARD_BYTES; }

// Memory between guards, where a sanitizer lets nobody read.
unsigned char* make(size_t bytes) {
    size_t end = rounded(bytes) - bytes + GUARD_BYTES;
    auto* start = static_cast<unsigned char*>(aligned_alloc(GUARD_BYTES, rounded(bytes) + 2 * GUARD_BYTES));
    if (!start) return nullptr;
    auto* memory = start + GUARD_BYTES;
    memset(start, GUARD, GUARD_BYTES);
    memset(memory, POISON, bytes);
    memset(memory + bytes, GUARD, end);
    ASAN_POISON_MEMORY_REGION(start, GUARD_BYTES);
    ASAN_POISON_MEMORY_REGION(memory + bytes, end);
    return memory;
}

CUresult allocate(CUdeviceptr* to, size_t bytes, bool is_host) {
    if (bytes == 0) return INVALID_VALUE;
    if (!is_host && ++allocated == settings.fail_alloc) return OUT_OF_MEMORY;
    if (!is_host && current->used_bytes + bytes > settings.memory_mb << 20) return OUT_OF_MEMORY;
    unsigned char* memory = make(bytes);
    if (!memory) return OUT_OF_MEMORY;
    *to = reinterpret_cast<CUdeviceptr>(memory);
    allocations[*to] = {current, bytes, is_host};
    current->used_bytes += is_host ? 0 : bytes;
    return SUCCESS;
}

// Nobody may name it any more from here on.
std::shared_ptr<Grave> bury(Found found) {
    const Allocation& allocation = found->second;
    auto* start = reinterpret_cast<unsigned char*>(found->first);
    auto grave = std::make_shared<Grave>(Grave{start, allocation.bytes, false});
    if (!allocation.is_host) allocation.context->used_bytes -= allocation.bytes;
    graves.push_back(grave);
    graves_bytes += grave->bytes;
    allocations.erase(found);
    return grave;
}

void poison(Grave& grave) {
    check_guards(grave.start, grave.bytes);
    memset(grave.start, POISON, grave.bytes);
    grave.is_poisoned = true;
}

void open_oldest_grave() {
    Grave grave = *graves.front();
    if (grave.is_poisoned && !holds(grave.start, grave.bytes, POISON))
        die("something wrote to memory of " + std::to_string(grave.bytes) + " bytes that was freed");
    check_guards(grave.start, grave.bytes);
    unsigned char* start = grave.start - GUARD_BYTES;
    ASAN_UNPOISON_MEMORY_REGION(start, rounded(grave.bytes) + 2 * GUARD_BYTES);
    free(start);
    graves_bytes -= grave.bytes;
    graves.pop_front();
}

CUresult release(CUdeviceptr pointer, bool is_host) {
    TRY(not_captured());
    auto found = allocations.find(pointer);
    if (found == allocations.end() || found->second.is_host != is_host) return INVALID_VALUE;
    TRY(finish_all());
    auto grave = bury(found);
    poison(*grave);
    ASAN_POISON_MEMORY_REGION(grave->start, grave->bytes);
    if (is_idle()) reclaim();
    return SUCCESS;
}

template <class Pointer> void* host(Pointer pointer) { return reinterpret_cast<void*>(pointer); }

// Whether host memory is pinned, which it must then be to its end.
bool is_pinned(const void* pointer, size_t bytes) {
    auto start = reinterpret_cast<uintptr_t>(pointer);
    auto found = allocation_of(start);
    if (found == allocations.end()) return false;
    if (!found->second.is_host) die("device memory where a copy has host memory");
    if (start + bytes > found->first + found->second.bytes) die("a copy beyond pinned memory");
    return true;
}

// Memory that a call names must be there, on the GPU of the current context.
CUresult check(CUdeviceptr pointer, size_t bytes, const char* what) {
    auto found = allocation_of(pointer);
    bool is_there = found != allocations.end() && !found->second.is_host;
    if (!is_there || pointer + bytes > found->first + found->second.bytes) die(what);
    return found->second.context == current ? SUCCESS : INVALID_VALUE;
}

}  // namespace

bool is_device(const Context* context, CUdeviceptr pointer, size_t bytes) {
    auto found = allocation_of(pointer);
    return found != allocations.end() && !found->second.is_host && found->second.context == context &&
           pointer + bytes <= found->first + found->second.bytes;
}

void check_all_guards() {
    for (const auto& [start, allocation] : allocations)
        check_guards(reinterpret_cast<unsigned char*>(start), allocation.bytes);
}

void reclaim() {
    while (graves_bytes > GRAVES_BYTES) open_oldest_grave();
}

void forget_memory(Context* context) {
    for (auto at = allocations.begin(); at != allocations.end();) {
        auto next = std::next(at);
        if (at->second.context == context) bury(at);
        at = next;
    }
    while (is_idle() && !graves.empty()) open_oldest_grave();
}

EXPORT void soft_check(void* context, const void* pointer, size_t bytes, const char* what) {
    std::lock_guard<std::recursive_mutex> lock(mutex);
    if (!is_device(static_cast<Context*>(context), reinterpret_cast<CUdeviceptr>(pointer), bytes))
        die(std::string(what) + " is no memory of the GPU");
}

EXPORT CUresult cuMemGetInfo_v2(size_t* free, size_t* total) {
    ENTER;
    *total = settings.memory_mb << 20;
    *free = *total - current->used_bytes;
    return SUCCESS;
}

EXPORT CUresult cuMemAlloc_v2(CUdeviceptr* pointer, size_t bytes) {
    ENTER;
    TRY(not_captured());
    return allocate(pointer, bytes, false);
}

EXPORT CUresult cuMemFree_v2(CUdeviceptr pointer) {
    ENTER;
    return release(pointer, false);
}

// The memory is there when the stream comes to it: what was written before is lost.
EXPORT CUresult cuMemAllocAsync(CUdeviceptr* pointer, size_t bytes, void* handle) {
    ENTER;
    Stream* stream;
    TRY(find_stream(handle, stream));
    if (!settings.has_pools()) return NOT_SUPPORTED;
    // A real driver makes it a node of the graph.
    if (stream->capture) return invalidate(*stream->capture, CAPTURE_UNSUPPORTED);
    TRY(allocate(pointer, bytes, false));
    void* memory = host(*pointer);
    return enqueue(stream, "alloc", [=] { memset(memory, POISON, bytes); });
}

EXPORT CUresult cuMemFreeAsync(CUdeviceptr pointer, void* handle) {
    ENTER;
    Stream* stream;
    TRY(find_stream(handle, stream));
    if (!settings.has_pools()) return NOT_SUPPORTED;
    if (stream->capture) return invalidate(*stream->capture, CAPTURE_UNSUPPORTED);
    auto found = allocations.find(pointer);
    if (found == allocations.end() || found->second.is_host || found->second.context != current) return INVALID_VALUE;
    auto grave = bury(found);
    return enqueue(stream, "free", [=] { poison(*grave); });
}

EXPORT CUresult cuMemHostAlloc(void** pointer, size_t bytes, unsigned) {
    ENTER;
    TRY(not_captured());
    return allocate(reinterpret_cast<CUdeviceptr*>(pointer), bytes, true);
}

EXPORT CUresult cuMemFreeHost(void* pointer) {
    ENTER;
    return release(reinterpret_cast<CUdeviceptr>(pointer), true);
}

EXPORT CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void* from, size_t bytes, void* handle) {
    ENTER;
    Stream* stream;
    TRY(find_stream(handle, stream));
    TRY(check(to, bytes, "an upload beyond device memory"));
    // A graph reads the host's memory each time it runs.
    bool is_late = is_pinned(from, bytes) || stream->capture;
    if (is_late) return enqueue(stream, "upload", [=] { memcpy(host(to), from, bytes); });
    // Pageable memory is copied before the call returns.
    auto* first = static_cast<const char*>(from);
    auto copy = std::make_shared<std::vector<char>>(first, first + bytes);
    return enqueue(stream, "upload", [=] { memcpy(host(to), copy->data(), bytes); });
}

EXPORT CUresult cuMemcpyDtoHAsync_v2(void* to, CUdeviceptr from, size_t bytes, void* handle) {
    ENTER;
    Stream* stream;
    TRY(find_stream(handle, stream));
    TRY(check(from, bytes, "a download from beyond device memory"));
    bool is_late = is_pinned(to, bytes) || stream->capture;
    // Who reads it too early finds NaN.
    Work forget = [=] { memset(to, POISON, bytes); };
    if (!stream->capture) forget();
    enqueue(stream, "download", [=] { memcpy(to, host(from), bytes); }, forget);
    return is_late ? SUCCESS : finish(stream);
}

EXPORT CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes, void* handle) {
    ENTER;
    Stream* stream;
    TRY(find_stream(handle, stream));
    TRY(check(from, bytes, "a copy from beyond device memory"));
    TRY(check(to, bytes, "a copy to beyond device memory"));
    return enqueue(stream, "copy", [=] { memmove(host(to), host(from), bytes); });
}

EXPORT CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t bytes, void* handle) {
    ENTER;
    Stream* stream;
    TRY(find_stream(handle, stream));
    TRY(check(to, bytes, "a fill beyond device memory"));
    return enqueue(stream, "fill", [=] { memset(host(to), value, bytes); });
}
