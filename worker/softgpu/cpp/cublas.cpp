// A libcublas for tests: the matrix products of a worker, column-major as the real one has them.
//
// A leading dimension that is too small, a matrix beyond its allocation, or an operand of another
// precision than the call says ends the process.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "soft.h"

namespace {

enum Status { SUCCESS = 0, NOT_INITIALIZED = 1, INVALID_VALUE = 7, NOT_SUPPORTED = 15 };
enum { OP_N = 0, OP_T = 1 };
enum { R_32F = 0, R_16BF = 14 };
enum { COMPUTE_32F = 68, COMPUTE_32F_PEDANTIC = 69, COMPUTE_32F_FAST_TF32 = 77 };

struct Handle { void* stream = nullptr; };

[[noreturn]] void die(const std::string& what) {
    fprintf(stderr, "software cuBLAS: %s\n", what.c_str());
    abort();
}

template <class T> T of_libcuda(const char* name) {
    static void* library = dlopen("libcuda.so", RTLD_NOW | RTLD_NOLOAD);
    void* symbol = library ? dlsym(library, name) : nullptr;
    if (!symbol) die(std::string("no ") + name + ": libcuda is not the software GPU's");
    return reinterpret_cast<T>(symbol);
}

float from_bf16(uint16_t value) {
    uint32_t bits = uint32_t(value) << 16;
    float result;
    memcpy(&result, &bits, 4);
    return result;
}

uint16_t to_bf16(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    if ((bits & 0x7fffffff) > 0x7f800000) return uint16_t(bits >> 16) | 0x40;
    return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// Of the 23 bits of the fraction TF32 keeps 10.
float to_tf32(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    bits = (bits + 0x0fff + (bits >> 13 & 1)) & ~0x1fffu;
    memcpy(&value, &bits, 4);
    return value;
}

struct Matrix { const void* data; int type, ld; bool transposed; };

void check(const char* name, const void* data, int type, int rows, int columns, int ld) {
    if (ld < rows) die(std::string(name) + ": a leading dimension of " + std::to_string(ld) + " for " + std::to_string(rows) + " rows");
    size_t numbers = size_t(ld) * (columns - 1) + rows;
    of_libcuda<SoftCheck>("soft_check")(data, numbers * (type == R_32F ? 4 : 2), name);
}

// op(matrix) as rows x columns, row by row.
std::vector<float> gather(const Matrix& matrix, int rows, int columns, bool is_tf32) {
    std::vector<float> values(size_t(rows) * columns);
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < columns; j++) {
            size_t at = matrix.transposed ? size_t(i) * matrix.ld + j : size_t(j) * matrix.ld + i;
            float value = matrix.type == R_32F ? static_cast<const float*>(matrix.data)[at]
                                               : from_bf16(static_cast<const uint16_t*>(matrix.data)[at]);
            values[size_t(i) * columns + j] = is_tf32 ? to_tf32(value) : value;
        }
    return values;
}

void multiply(int m, int n, int k, float alpha, const Matrix& a, const Matrix& b, float beta, void* c, int c_type, int ldc, bool is_tf32) {
    // c is column-major, so that each of its columns is a row here: c^T (n, m) = b^T (n, k) * a^T (k, m).
    Matrix a_t{a.data, a.type, a.ld, !a.transposed}, b_t{b.data, b.type, b.ld, !b.transposed};
    auto left = gather(b_t, n, k, is_tf32), right = gather(a_t, k, m, is_tf32);
    std::vector<float> row(m);
    for (int j = 0; j < n; j++) {
        std::fill(row.begin(), row.end(), 0.0f);
        for (int p = 0; p < k; p++) {
            float factor = left[size_t(j) * k + p];
            const float* from = &right[size_t(p) * m];
            for (int i = 0; i < m; i++) row[i] += factor * from[i];
        }
        for (int i = 0; i < m; i++) {
            size_t at = size_t(j) * ldc + i;
            if (c_type == R_32F) {
                float& to = static_cast<float*>(c)[at];
                to = beta == 0 ? alpha * row[i] : alpha * row[i] + beta * to;
            } else {
                uint16_t& to = static_cast<uint16_t*>(c)[at];
                to = to_bf16(beta == 0 ? alpha * row[i] : alpha * row[i] + beta * from_bf16(to));
            }
        }
    }
}

Status gemm(Handle* handle, int op_a, int op_b, int m, int n, int k, const float* alpha, Matrix a, Matrix b, const float* beta,
            void* c, int c_type, int ldc, bool is_tf32) {
    if (m <= 0 || n <= 0 || k <= 0 || (op_a != OP_N && op_a != OP_T) || (op_b != OP_N && op_b != OP_T)) return INVALID_VALUE;
    a.transposed = op_a == OP_T;
    b.transposed = op_b == OP_T;
    check("a", a.data, a.type, op_a == OP_N ? m : k, op_a == OP_N ? k : m, a.ld);
    check("b", b.data, b.type, op_b == OP_N ? k : n, op_b == OP_N ? n : k, b.ld);
    check("c", c, c_type, m, n, ldc);
    float alpha_now = *alpha, beta_now = *beta;
    std::function<void()> work = [=] { multiply(m, n, k, alpha_now, a, b, beta_now, c, c_type, ldc, is_tf32); };
    std::string what = "gemm " + std::to_string(m) + "x" + std::to_string(n) + "x" + std::to_string(k);
    of_libcuda<SoftEnqueue>("soft_enqueue")(handle->stream, what.c_str(), &work);
    return SUCCESS;
}

}  // namespace

extern "C" {

Status cublasCreate_v2(Handle** handle) {
    *handle = new Handle;
    return SUCCESS;
}

Status cublasDestroy_v2(Handle* handle) {
    delete handle;
    return SUCCESS;
}

Status cublasGetVersion_v2(Handle*, int* version) {
    *version = 110803;
    return SUCCESS;
}

// Property 0 is the major version.
Status cublasGetProperty(int property, int* value) {
    *value = property == 0 ? 11 : 0;
    return SUCCESS;
}

Status cublasSetStream_v2(Handle* handle, void* stream) {
    handle->stream = stream;
    return SUCCESS;
}

Status cublasSetWorkspace_v2(Handle*, void* workspace, size_t bytes) {
    of_libcuda<SoftCheck>("soft_check")(workspace, bytes, "workspace");
    return SUCCESS;
}

Status cublasSetMathMode(Handle*, int) { return SUCCESS; }
Status cublasSetAtomicsMode(Handle*, int mode) { return mode == 0 ? SUCCESS : NOT_SUPPORTED; }
Status cublasSetPointerMode_v2(Handle*, int mode) { return mode == 0 ? SUCCESS : NOT_SUPPORTED; }

Status cublasSgemm_v2(Handle* handle, int op_a, int op_b, int m, int n, int k, const float* alpha, const float* a, int lda,
                      const float* b, int ldb, const float* beta, float* c, int ldc) {
    return gemm(handle, op_a, op_b, m, n, k, alpha, {a, R_32F, lda, false}, {b, R_32F, ldb, false}, beta, c, R_32F, ldc, false);
}

Status cublasGemmEx(Handle* handle, int op_a, int op_b, int m, int n, int k, const void* alpha, const void* a, int a_type, int lda,
                    const void* b, int b_type, int ldb, const void* beta, void* c, int c_type, int ldc, int compute, int) {
    if (compute != COMPUTE_32F && compute != COMPUTE_32F_PEDANTIC && compute != COMPUTE_32F_FAST_TF32) return NOT_SUPPORTED;
    for (int type : {a_type, b_type, c_type})
        if (type != R_32F && type != R_16BF) return NOT_SUPPORTED;
    if (a_type != b_type) return NOT_SUPPORTED;
    bool is_tf32 = compute == COMPUTE_32F_FAST_TF32 && a_type == R_32F;
    return gemm(handle, op_a, op_b, m, n, k, static_cast<const float*>(alpha), {a, a_type, lda, false}, {b, b_type, ldb, false},
                static_cast<const float*>(beta), c, c_type, ldc, is_tf32);
}

}  // extern "C"
