// The software GPU itself: that it does what CUDA promises, and that it shows what CUDA does not.
//
// `selftest CASE` exits with 0 when the case is as it should be; `selftest` alone lists the cases.
#include <cstdio>
#include <cstdlib>
#include <sys/wait.h>
#include <unistd.h>

#include "selftest.h"

extern const char* KERNELS;

static std::map<std::string, bool (*)()>& cases() {
    static std::map<std::string, bool (*)()> all;
    return all;
}

Case::Case(const char* name, bool (*holds)()) { cases()[name] = holds; }

void fail(const std::string& what) {
    fprintf(stderr, "%s\n", what.c_str());
    exit(1);
}

void must(int status, const char* what) {
    if (status != 0) fail(std::string(what) + ": " + std::to_string(status));
}

bool returns(int expected, int status, const char* what) {
    if (status == expected) return true;
    fprintf(stderr, "%s: %d instead of %d\n", what, status, expected);
    return false;
}

int capability() {
    int major, minor;
    MUST(cuDeviceGetAttribute(&major, 75, 0));
    MUST(cuDeviceGetAttribute(&minor, 76, 0));
    return 10 * major + minor;
}

std::vector<char> code(int arch) {
    void* program;
    MUST(nvrtcCreateProgram(&program, KERNELS, "selftest.cu", 0, nullptr, nullptr));
    std::string option = "--gpu-architecture=sm_" + std::to_string(arch);
    const char* options[] = {option.c_str()};
    size_t size;
    if (nvrtcCompileProgram(program, 1, options) != 0) {
        nvrtcGetProgramLogSize(program, &size);
        std::vector<char> log(size);
        nvrtcGetProgramLog(program, log.data());
        fail(log.data());
    }
    MUST(nvrtcGetCUBINSize(program, &size));
    std::vector<char> code(size);
    MUST(nvrtcGetCUBIN(program, code.data()));
    MUST(nvrtcDestroyProgram(&program));
    return code;
}

static void* current;

void* function(const char* name) {
    static std::map<void*, void*> modules;
    void*& module = modules[current];
    if (!module) MUST(cuModuleLoadData(&module, code(capability()).data()));
    void* found;
    MUST(cuModuleGetFunction(&found, module, name));
    return found;
}

void* context(int device) {
    MUST(cuDevicePrimaryCtxRetain(&current, device));
    MUST(cuCtxSetCurrent(current));
    return current;
}

void* stream() {
    void* made;
    MUST(cuStreamCreate(&made, 1));
    return made;
}

void* event() {
    void* made;
    MUST(cuEventCreate(&made, 2));
    return made;
}

uint64_t memory(int numbers) {
    uint64_t made;
    MUST(cuMemAlloc_v2(&made, numbers * sizeof(float)));
    return made;
}

float* pinned(int numbers) {
    void* made;
    MUST(cuMemHostAlloc(&made, numbers * sizeof(float), 0));
    return static_cast<float*>(made);
}

void launch(const char* name, void* stream, std::vector<void*> args, unsigned blocks, unsigned threads) {
    MUST(cuLaunchKernel(function(name), blocks, 1, 1, threads, 1, 1, 0, stream, args.data(), nullptr));
}

void fill(uint64_t to, float value, void* stream) {
    int n = N;
    launch("fill", stream, {&to, &value, &n});
}

void upload(uint64_t to, const std::vector<float>& values, void* stream) {
    MUST(cuMemcpyHtoDAsync_v2(to, values.data(), values.size() * sizeof(float), stream));
}

std::vector<float> read(uint64_t from, void* stream, int numbers) {
    std::vector<float> values(numbers);
    MUST(cuMemcpyDtoHAsync_v2(values.data(), from, numbers * sizeof(float), stream));
    MUST(cuStreamSynchronize(stream));
    return values;
}

void* graph(void* stream, const std::function<void()>& work) {
    void *graph, *executable;
    function("fill");  // the module must be there before
    MUST(cuStreamBeginCapture_v2(stream, 1));
    work();
    MUST(cuStreamEndCapture(stream, &graph));
    MUST(cuGraphInstantiateWithFlags(&executable, graph, 0));
    return executable;
}

unsigned seeds_that(const std::function<bool()>& is_right) {
    unsigned right = 0;
    for (unsigned seed = 1; seed <= SEEDS; seed++) {
        soft_seed(seed);
        right += is_right();
    }
    return right;
}

// How a process ends that does `what`.
static int status_of(const std::function<int()>& what) {
    pid_t child = fork();
    if (child == 0) {
        if (!freopen("/dev/null", "w", stderr)) _exit(1);
        _exit(what());
    }
    int status;
    waitpid(child, &status, 0);
    return status;
}

bool dies(const std::function<void()>& what) {
    int status = status_of([&] { return what(), 0; });
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

bool goes_wrong(const std::function<bool()>& is_right) {
    return status_of([&] { return seeds_that(is_right) == SEEDS ? 0 : 1; }) != 0;
}

int main(int count, char** args) {
    if (count == 1) {
        for (const auto& [name, holds] : cases()) puts(name.c_str());
        return 0;
    }
    MUST(cuInit(0));
    context(0);
    auto found = cases().find(args[1]);
    if (found == cases().end()) fail("no such case");
    return found->second() ? 0 : 1;
}
