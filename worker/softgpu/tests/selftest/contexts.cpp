// Contexts, and GPUs that fail.
#include <cstring>

#include "selftest.h"

CASE(a_call_needs_a_context) {
    uint64_t made;
    void *s = stream(), *e, *kernel = function("fill"), *module;
    uint64_t values = memory(N);
    auto image = code(capability());
    MUST(cuCtxSetCurrent(nullptr));
    return RETURNS(201, cuMemAlloc_v2(&made, 64)) && RETURNS(201, cuStreamCreate(&e, 1)) &&
           RETURNS(201, cuEventCreate(&e, 2)) && RETURNS(201, cuModuleLoadData(&module, image.data())) &&
           RETURNS(201, cuMemsetD8Async(values, 0, 4, s)) && RETURNS(201, cuStreamSynchronize(s)) &&
           RETURNS(201, cuLaunchKernel(kernel, 1, 1, 1, 1, 1, 1, 0, s, nullptr, nullptr)) &&
           RETURNS(1, cublasCreate_v2(&e)) && RETURNS(201, cuCtxSetCurrent(&made));
}

// With two GPUs.
CASE(each_gpu_has_a_context) {
    void *first = context(0), *s = stream(), *e = event(), *kernel = function("fill"), *handle;
    uint64_t values = memory(N), own;
    float value = 1.0f;
    int n = N;
    void* args[] = {&values, &value, &n};
    MUST(cublasCreate_v2(&handle));
    void *second = context(1), *other = stream();
    MUST(cuMemAlloc_v2(&own, 64));
    bool is_refused = first != second && RETURNS(400, cuMemsetD8Async(own, 0, 4, s)) &&
                      RETURNS(1, cuMemsetD8Async(values, 0, 4, other)) && RETURNS(400, cuEventRecord(e, other)) &&
                      RETURNS(400, cuLaunchKernel(kernel, 1, 1, 1, N, 1, 1, 0, other, args, nullptr)) &&
                      RETURNS(400, cuLaunchKernel(function("fill"), 1, 1, 1, N, 1, 1, 0, s, args, nullptr)) &&
                      dies([=] { cublasSetStream_v2(handle, other); });
    // Whoever waits may wait for another GPU.
    return is_refused && RETURNS(0, cuStreamSynchronize(s)) && RETURNS(0, cuStreamWaitEvent(other, e, 0));
}

CASE(a_context_that_is_released) {
    uint64_t made;
    void* s = stream();
    MUST(cuDevicePrimaryCtxRelease_v2(0));
    if (!RETURNS(709, cuMemAlloc_v2(&made, 64)) || !RETURNS(709, cuStreamSynchronize(s))) return false;
    context(0);
    // It is another one in all but its address.
    return RETURNS(0, cuMemAlloc_v2(&made, 64)) && RETURNS(400, cuStreamSynchronize(s));
}

// With lose=2 and fail_with=214 of two GPUs.
CASE(an_error_stays) {
    context(1);
    void* other = stream();
    context(0);
    void *s = stream(), *made;
    uint64_t values = memory(N);
    for (int i = 0; i < 3; i++) fill(values, 1.0f, s);
    bool stays = RETURNS(214, cuStreamSynchronize(s)) && RETURNS(214, cuStreamSynchronize(s)) &&
                 RETURNS(214, cuMemAlloc_v2(&values, 64)) && RETURNS(214, cuStreamCreate(&made, 1)) &&
                 RETURNS(214, cuMemFree_v2(values)) && RETURNS(214, cuCtxSynchronize());
    MUST(cuCtxSetCurrent(context(1)));
    return stays && RETURNS(0, cuStreamSynchronize(other));
}

// With fail_launch=2 and fail_with=700: the launch fails, but not the GPU.
CASE(a_launch_that_fails) {
    uint64_t values = memory(N);
    float value = 1.0f;
    int n = N;
    void *s = stream(), *args[] = {&values, &value, &n}, *kernel = function("fill");
    auto launch = [&] { return cuLaunchKernel(kernel, 1, 1, 1, N, 1, 1, 0, s, args, nullptr); };
    return RETURNS(0, launch()) && RETURNS(700, launch()) && RETURNS(0, launch()) && RETURNS(0, cuStreamSynchronize(s));
}

CASE(names_of_errors) {
    struct { int error; const char *name, *text; } known[] = {
        {214, "CUDA_ERROR_ECC_UNCORRECTABLE", "uncorrectable ECC error encountered"},
        {700, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
        {719, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
        {209, "CUDA_ERROR_NO_BINARY_FOR_GPU", "no kernel image is available for execution on the device"},
    };
    const char *name, *text;
    for (auto& one : known) {
        MUST(cuGetErrorName(one.error, &name));
        MUST(cuGetErrorString(one.error, &text));
        if (strcmp(name, one.name) != 0 || strcmp(text, one.text) != 0) return false;
    }
    return RETURNS(1, cuGetErrorName(12345, &name));
}
