// A libcuda for tests: GPUs whose memory is the host's.
//
// Streams keep the promises of CUDA and no others. What is enqueued runs late, when somebody waits for
// it, or now and then at once, in any order that streams and events allow, chosen by a seed. Memory
// holds NaN when it is allocated and when it is freed, and has guard bytes on both sides.
//
//     HW2_SOFTGPU      devices=2 cc=8.0 memory_mb=4096 driver=12040 seed=7 (0: everything in order)
//                      pools=0 (no allocations in the order of a stream)  graphs=0 (what is captured cannot run)
//                      fail_alloc=3 (the third allocation finds no memory)
//                      fail_launch=10 (the tenth launch fails)  lose=20 (and here the device is lost)
//                      fail_with=214 (which error that is, here one of ECC)
//                      hang=20 (this launch never ends, nor does what waits for it)
//     HW2_SOFTGPU_LOG  a file that gets a line for each launch
//
// Here: devices and their contexts.
#include <cstdio>
#include <cstring>

#include "driver.h"

std::recursive_mutex mutex;
Settings settings;
std::mt19937 chance(settings.seed);
thread_local Context* current;
// A deque, so that they stay where they are.
std::deque<Context> contexts;
std::set<Stream*> streams;

namespace {

bool is_initialized;

CUresult check_device(CUdevice device) {
    if (!is_initialized) return NOT_INITIALIZED;
    return device >= 0 && device < settings.devices ? SUCCESS : INVALID_DEVICE;
}

void put(const char* text, char* to, int len) { snprintf(to, len, "%s", text); }

bool is_context(void* pointer) {
    for (Context& context : contexts)
        if (&context == pointer) return true;
    return false;
}

}  // namespace

CUresult unusable() {
    if (!is_initialized) return NOT_INITIALIZED;
    if (!current) return INVALID_CONTEXT;
    if (current->retained == 0) return CONTEXT_IS_DESTROYED;
    return current->error;
}

EXPORT void* soft_context() { return current; }

EXPORT int soft_capability(void*) { return 10 * settings.major + settings.minor; }

// For tests of one process: another order from here on.
EXPORT void soft_seed(unsigned seed) {
    std::lock_guard<std::recursive_mutex> lock(mutex);
    settings.seed = seed;
    chance.seed(seed);
}

EXPORT CUresult cuInit(unsigned) {
    std::lock_guard<std::recursive_mutex> lock(mutex);
    if (settings.devices == 0) return NO_DEVICE;
    for (CUdevice device = contexts.size(); device < settings.devices; device++) {
        Context& context = contexts.emplace_back();
        context.device = device;
        context.null_stream.context = &context;
    }
    is_initialized = true;
    return SUCCESS;
}

EXPORT CUresult cuDriverGetVersion(int* version) {
    *version = settings.driver;
    return SUCCESS;
}

EXPORT CUresult cuDeviceGetCount(int* count) {
    if (!is_initialized) return NOT_INITIALIZED;
    *count = settings.devices;
    return SUCCESS;
}

EXPORT CUresult cuDeviceGet(CUdevice* device, int ordinal) {
    *device = ordinal;
    return check_device(ordinal);
}

EXPORT CUresult cuDeviceGetName(char* name, int len, CUdevice device) {
    TRY(check_device(device));
    put("Software GPU", name, len);
    return SUCCESS;
}

EXPORT CUresult cuDeviceGetUuid_v2(char* uuid, CUdevice device) {
    TRY(check_device(device));
    memset(uuid, 0, 16);
    uuid[15] = char(device);
    return SUCCESS;
}

EXPORT CUresult cuDeviceGetPCIBusId(char* id, int len, CUdevice device) {
    TRY(check_device(device));
    put(("0000:0" + std::to_string(device) + ":00.0").c_str(), id, len);
    return SUCCESS;
}

EXPORT CUresult cuDeviceTotalMem_v2(size_t* bytes, CUdevice device) {
    TRY(check_device(device));
    *bytes = settings.memory_mb << 20;
    return SUCCESS;
}

EXPORT CUresult cuDeviceGetAttribute(int* value, int attribute, CUdevice device) {
    TRY(check_device(device));
    switch (attribute) {
        case 1: *value = 1024; break;                // threads of a block
        case 10: *value = 32; break;                 // threads of a warp
        case 16: *value = 2; break;                  // multiprocessors
        case 38: *value = 4 << 20; break;            // bytes of L2
        case 75: *value = settings.major; break;
        case 76: *value = settings.minor; break;
        case 115: *value = settings.has_pools(); break;
        default: *value = 0;
    }
    return SUCCESS;
}

EXPORT CUresult cuDevicePrimaryCtxRetain(void** to, CUdevice device) {
    std::lock_guard<std::recursive_mutex> lock(mutex);
    TRY(check_device(device));
    Context& context = contexts[device];
    TRY(context.error);
    context.retained++;
    *to = &context;
    return SUCCESS;
}

// The last one to release it ends it, with all that belongs to it and what went wrong with it.
EXPORT CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device) {
    std::lock_guard<std::recursive_mutex> lock(mutex);
    TRY(check_device(device));
    Context& context = contexts[device];
    if (context.retained == 0) return INVALID_CONTEXT;
    if (--context.retained > 0) return SUCCESS;
    lose(&context, SUCCESS);
    forget_graphs(&context);
    forget_streams(&context);
    forget_modules(&context);
    forget_memory(&context);
    return SUCCESS;
}

EXPORT CUresult cuCtxSetCurrent(void* to) {
    std::lock_guard<std::recursive_mutex> lock(mutex);
    if (to && !is_context(to)) return INVALID_CONTEXT;
    current = static_cast<Context*>(to);
    return SUCCESS;
}

EXPORT CUresult cuCtxGetCurrent(void** to) {
    if (!is_initialized) return NOT_INITIALIZED;
    *to = current;
    return SUCCESS;
}

EXPORT CUresult cuCtxSynchronize() {
    ENTER;
    TRY(not_captured());
    return finish_all();
}
