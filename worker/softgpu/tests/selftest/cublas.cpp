// Matrix products.
#include <cstring>

#include "selftest.h"

enum { R_32F = 0, R_16BF = 14 };
enum { COMPUTE_32F = 68, COMPUTE_32F_FAST_16BF = 75, COMPUTE_32F_FAST_TF32 = 77 };

static const float ONE = 1.0f, ZERO = 0.0f;

static void* handle_for(void* stream) {
    void* handle;
    MUST(cublasCreate_v2(&handle));
    MUST(cublasSetStream_v2(handle, stream));
    return handle;
}

static float* matrix() { return reinterpret_cast<float*>(memory(N)); }

static void multiply_with(int lda) {
    float *a = matrix(), *c = matrix();
    MUST(cublasSgemm_v2(handle_for(nullptr), 0, 0, 8, 4, 2, &ONE, a, lda, a, 2, &ZERO, c, 8));
}

CASE(leading_dimension) { return !dies([] { multiply_with(8); }) && dies([] { multiply_with(7); }); }

CASE(operands_in_one_allocation) {
    auto multiply = [](int k, bool overlaps) {
        float *a = matrix(), *b = matrix(), *c = overlaps ? a + 8 : matrix();
        MUST(cublasSgemm_v2(handle_for(nullptr), 0, 0, 8, 4, k, &ONE, a, 8, b, k, &ZERO, c, 8));
    };
    return !dies([=] { multiply(16, false); }) && dies([=] { multiply(17, false); }) &&
           dies([=] { multiply(2, true); });
}

// c (1, 1) = a (1, 1) * b (1, 1) by cublasGemmEx; -1 if it is refused.
static float product(float a, float b, int type, int c_type, int compute, int* status) {
    void *s = stream(), *handle = handle_for(s);
    uint64_t at[] = {memory(N), memory(N), memory(N)};
    float numbers[] = {a, b};
    for (int i = 0; i < 2; i++) {
        std::vector<float> values(1, numbers[i]);
        // The upper half of a float is a bf16.
        if (type == R_16BF) memcpy(values.data(), reinterpret_cast<char*>(values.data()) + 2, 2);
        upload(at[i], values, s);
    }
    auto pointer = [&](int i) { return reinterpret_cast<void*>(at[i]); };
    *status = cublasGemmEx(handle, 0, 0, 1, 1, 1, &ONE, pointer(0), type, 1, pointer(1), type, 1, &ZERO, pointer(2),
                           c_type, 1, compute, -1);
    if (*status != 0) return -1.0f;
    float result = read(at[2], s)[0];
    if (c_type == R_32F) return result;
    float wide = 0.0f;
    memcpy(reinterpret_cast<char*>(&wide) + 2, &result, 2);
    return wide;
}

CASE(precisions) {
    int status;
    auto is = [&](float expected, float a, int type, int c_type, int compute) {
        return product(a, 3.0f, type, c_type, compute, &status) == expected && status == 0;
    };
    // 1 + 2^-7 is a bf16, three times that is none. 1 + 2^-9 is a TF32, 1 + 2^-20 is none.
    return is(3.0234375f, 1.0078125f, R_16BF, R_32F, COMPUTE_32F) &&
           is(3.03125f, 1.0078125f, R_16BF, R_16BF, COMPUTE_32F) &&
           is(3.005859375f, 1.001953125f, R_32F, R_32F, COMPUTE_32F_FAST_TF32) &&
           is(3.0f, 1.001953125f, R_32F, R_32F, COMPUTE_32F_FAST_16BF) &&
           is(3.0f, 1.00000095367431640625f, R_32F, R_32F, COMPUTE_32F_FAST_TF32) &&
           is(3.00000286102294921875f, 1.00000095367431640625f, R_32F, R_32F, COMPUTE_32F);
}

// 256 + 1 + 1 + 0 with a result in bf16, where 257 is none: as two sums, unless that is not allowed.
static uint16_t sum_of_four(int math) {
    void *s = stream(), *handle = handle_for(s);
    MUST(cublasSetMathMode(handle, math));
    const uint16_t a[] = {0x4380, 0x3f80, 0x3f80, 0}, ones[] = {0x3f80, 0x3f80, 0x3f80, 0x3f80};
    uint64_t at[] = {memory(N), memory(N), memory(N)};
    int place = 0;
    for (const uint16_t* four : {a, ones}) {
        std::vector<float> values(2);
        memcpy(values.data(), four, 8);
        upload(at[place++], values, s);
    }
    auto pointer = [&](int i) { return reinterpret_cast<void*>(at[i]); };
    MUST(cublasGemmEx(handle, 0, 0, 1, 1, 4, &ONE, pointer(0), R_16BF, 1, pointer(1), R_16BF, 4, &ZERO, pointer(2),
                      R_16BF, 1, COMPUTE_32F, -1));
    float result = read(at[2], s)[0];
    uint16_t half;
    memcpy(&half, &result, 2);
    return half;
}

CASE(sums_in_the_format_of_the_result) { return sum_of_four(0) == 0x4380 && sum_of_four(16) == 0x4381; }

static bool answers(int expected, int type, int c_type, int compute) {
    int status;
    product(1.0f, 1.0f, type, c_type, compute, &status);
    return RETURNS(expected, status);
}

CASE(precisions_that_do_not_go_together) {
    return answers(15, R_32F, R_16BF, COMPUTE_32F) && answers(15, R_16BF, R_32F, COMPUTE_32F_FAST_TF32) &&
           answers(15, R_32F, R_32F, 64);
}

// With a V100.
CASE(precisions_of_an_older_gpu) {
    return answers(15, R_16BF, R_32F, COMPUTE_32F) && answers(15, R_32F, R_32F, COMPUTE_32F_FAST_TF32) &&
           answers(15, R_32F, R_32F, COMPUTE_32F_FAST_16BF) && answers(0, R_32F, R_32F, COMPUTE_32F);
}

// With a K80.
CASE(no_gemm_ex) { return answers(8, R_32F, R_32F, COMPUTE_32F); }

// A product in a capture, with a workspace that was given before or after the stream.
static void capture_product(bool in_order) {
    void *s = stream(), *handle = handle_for(s);
    float *a = matrix(), *c = matrix(), *workspace = matrix();
    MUST(cublasSetWorkspace_v2(handle, workspace, N * sizeof(float)));
    if (!in_order) MUST(cublasSetStream_v2(handle, s));
    graph(s, [=] { MUST(cublasSgemm_v2(handle, 0, 0, 8, 4, 2, &ONE, a, 8, a, 2, &ZERO, c, 8)); });
}

CASE(workspace_of_a_capture) {
    return !dies([] { capture_product(true); }) && dies([] { capture_product(false); });
}

CASE(the_workspace_is_cublas_own) {
    void *s = stream(), *handle = handle_for(s);
    uint64_t workspace = memory(N);
    float *a = matrix(), *c = matrix();
    fill(workspace, 1.0f, s);
    MUST(cublasSetWorkspace_v2(handle, reinterpret_cast<void*>(workspace), N * sizeof(float)));
    MUST(cublasSgemm_v2(handle, 0, 0, 8, 4, 2, &ONE, a, 8, a, 2, &ZERO, c, 8));
    return std::isnan(read(workspace, s)[0]);
}
