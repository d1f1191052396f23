// What all cases use: the calls of the three libraries, and short ways to make them.
#pragma once
#include <cmath>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

extern "C" {
int cuInit(unsigned);
int cuGetErrorName(int, const char**);
int cuGetErrorString(int, const char**);
int cuDeviceGetAttribute(int*, int, int);
int cuDevicePrimaryCtxRetain(void**, int);
int cuDevicePrimaryCtxRelease_v2(int);
int cuCtxSetCurrent(void*);
int cuCtxSynchronize();
int cuMemAlloc_v2(uint64_t*, size_t);
int cuMemFree_v2(uint64_t);
int cuMemAllocAsync(uint64_t*, size_t, void*);
int cuMemFreeAsync(uint64_t, void*);
int cuMemHostAlloc(void**, size_t, unsigned);
int cuMemcpyHtoDAsync_v2(uint64_t, const void*, size_t, void*);
int cuMemcpyDtoHAsync_v2(void*, uint64_t, size_t, void*);
int cuMemcpyDtoDAsync_v2(uint64_t, uint64_t, size_t, void*);
int cuMemsetD8Async(uint64_t, unsigned char, size_t, void*);
int cuStreamCreate(void**, unsigned);
int cuStreamDestroy_v2(void*);
int cuStreamSynchronize(void*);
int cuStreamWaitEvent(void*, void*, unsigned);
int cuStreamBeginCapture_v2(void*, int);
int cuStreamEndCapture(void*, void**);
int cuStreamIsCapturing(void*, int*);
int cuGraphInstantiateWithFlags(void**, void*, unsigned long long);
int cuGraphLaunch(void*, void*);
int cuEventCreate(void**, unsigned);
int cuEventRecord(void*, void*);
int cuEventSynchronize(void*);
int cuEventQuery(void*);
int cuModuleLoadData(void**, const void*);
int cuModuleGetFunction(void**, void*, const char*);
int cuLaunchKernel(void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void*, void**, void**);
void soft_seed(unsigned);
int nvrtcCreateProgram(void**, const char*, const char*, int, const char* const*, const char* const*);
int nvrtcDestroyProgram(void**);
int nvrtcCompileProgram(void*, int, const char* const*);
int nvrtcGetCUBINSize(void*, size_t*);
int nvrtcGetCUBIN(void*, char*);
int nvrtcGetProgramLogSize(void*, size_t*);
int nvrtcGetProgramLog(void*, char*);
int cublasCreate_v2(void**);
int cublasSetStream_v2(void*, void*);
int cublasSetMathMode(void*, int);
int cublasSetWorkspace_v2(void*, void*, size_t);
int cublasSgemm_v2(void*, int, int, int, int, int, const float*, const float*, int, const float*, int, const float*,
                   float*, int);
int cublasGemmEx(void*, int, int, int, int, int, const void*, const void*, int, int, const void*, int, int, const void*,
                 void*, int, int, int, int);
}

constexpr unsigned SEEDS = 20;
constexpr int N = 128;

// A case by its name; whether things are as they should be.
struct Case {
    Case(const char* name, bool (*holds)());
};
#define CASE(name)                              \
    static bool name();                         \
    static const Case case_of_##name(#name, name); \
    static bool name()

[[noreturn]] void fail(const std::string& what);
void must(int status, const char* what);
// Whether `call` returns what it should; says so if not.
bool returns(int expected, int status, const char* what);

#define MUST(call) must(call, #call)
#define RETURNS(expected, call) returns(expected, call, #call)

// The compute capability of the GPU: 80 for 8.0.
int capability();
// All kernels of the cases, compiled for that one.
std::vector<char> code(int arch);
// A kernel, loaded into the current context.
void* function(const char* name);
void* context(int device);
void* stream();
void* event();
uint64_t memory(int numbers);
float* pinned(int numbers);
void launch(const char* name, void* stream, std::vector<void*> args, unsigned blocks = 1, unsigned threads = N);
void fill(uint64_t to, float value, void* stream);
void upload(uint64_t to, const std::vector<float>& values, void* stream);
std::vector<float> read(uint64_t from, void* stream, int numbers = N);
// What is captured in `stream` while `work` runs, ready to be launched.
void* graph(void* stream, const std::function<void()>& work);

// How many seeds give what is right.
unsigned seeds_that(const std::function<bool()>& is_right);
// Whether `what` ends the process.
bool dies(const std::function<void()>& what);
// Whether some seed gives what is wrong, or ends the process, as sanitizers do.
bool goes_wrong(const std::function<bool()>& is_right);
