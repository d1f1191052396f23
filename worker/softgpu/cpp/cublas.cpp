// A libcublas for tests: the matrix products of a worker, column-major as the real one has them.
//
// What the real one answers with an error that says little, or does not notice, ends the process: a
// leading dimension that is too small, a matrix that is not within one allocation on the handle's GPU,
// a result that overlaps an operand, a product in a capture without a workspace of the caller's.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <functional>
#include <string>
#include <vector>

#include "soft.h"

namespace {

enum Status {
    SUCCESS = 0, NOT_INITIALIZED = 1, INVALID_VALUE = 7, ARCH_MISMATCH = 8, EXECUTION_FAILED = 13, NOT_SUPPORTED = 15,
};
enum { OP_N = 0, OP_T = 1 };
enum { R_32F = 0, R_16BF = 14 };
enum Compute { COMPUTE_32F = 68, COMPUTE_32F_PEDANTIC = 69, COMPUTE_32F_FAST_16BF = 75, COMPUTE_32F_FAST_TF32 = 77 };
enum { MATH_TF32 = 3, MATH_SUMS_IN_F32 = 16 };

struct Handle {
    void* context;
    void* stream = nullptr;
    // What the caller gave since it last chose a stream.
    void* workspace = nullptr;
    size_t workspace_bytes = 0;
    int math = 0;
};

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

int capability(const Handle* handle) { return of_libcuda<SoftCapability>("soft_capability")(handle->context); }

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

// How the operands are rounded before they are multiplied.
typedef float (*Rounding)(float);
float keep(float value) { return value; }
float through_bf16(float value) { return from_bf16(to_bf16(value)); }

Rounding rounding(int compute) {
    switch (compute) {
        case COMPUTE_32F_FAST_16BF: return through_bf16;
        case COMPUTE_32F_FAST_TF32: return to_tf32;
        default: return keep;
    }
}

struct Matrix {
    const void* data;
    int type, ld;
    bool transposed;
    // As they lie in memory.
    int rows, columns;

    size_t bytes() const { return (size_t(ld) * (columns - 1) + rows) * (type == R_32F ? 4 : 2); }
    bool overlaps(const Matrix& other) const {
        auto *start = static_cast<const char*>(data), *others = static_cast<const char*>(other.data);
        return start < others + other.bytes() && others < start + bytes();
    }
    float at(size_t index) const {
        if (type == R_32F) return static_cast<const float*>(data)[index];
        return from_bf16(static_cast<const uint16_t*>(data)[index]);
    }
    void set(size_t index, float value) const {
        void* to = const_cast<void*>(data);
        if (type == R_32F) static_cast<float*>(to)[index] = value;
        else static_cast<uint16_t*>(to)[index] = to_bf16(value);
    }
};

Matrix matrix(const void* data, int type, int ld) { return {data, type, ld, false, 0, 0}; }

// The real one may divide k among several blocks, whose sums it then adds as what c is, unless it is told not to.
struct Product { Matrix a, b, c; int m, n, k; float alpha, beta; Rounding round, round_sums; };

// op(matrix) as rows x columns, row by row.
std::vector<float> gather(const Matrix& matrix, int rows, int columns, Rounding round) {
    std::vector<float> values(size_t(rows) * columns);
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < columns; j++) {
            size_t at = matrix.transposed ? size_t(i) * matrix.ld + j : size_t(j) * matrix.ld + i;
            values[size_t(i) * columns + j] = round(matrix.at(at));
        }
    return values;
}

void multiply(const Product& product) {
    const auto& [a, b, c, m, n, k, alpha, beta, round, round_sums] = product;
    // c is column-major, so that each of its columns is a row here: c^T (n, m) = b^T (n, k) * a^T (k, m).
    Matrix a_t = a, b_t = b;
    a_t.transposed = !a.transposed;
    b_t.transposed = !b.transposed;
    auto left = gather(b_t, n, k, round), right = gather(a_t, k, m, round);
    std::vector<float> row(m);
    for (int j = 0; j < n; j++) {
        std::fill(row.begin(), row.end(), 0.0f);
        for (int p = 0; p < k; p++) {
            if (round_sums != keep && p == k / 2) for (float& sum : row) sum = round_sums(sum);
            float factor = left[size_t(j) * k + p];
            const float* from = &right[size_t(p) * m];
            for (int i = 0; i < m; i++) row[i] += factor * from[i];
        }
        for (int i = 0; i < m; i++) {
            size_t at = size_t(j) * c.ld + i;
            c.set(at, beta == 0 ? alpha * row[i] : alpha * row[i] + beta * c.at(at));
        }
    }
}

void check_memory(const Handle* handle, const void* data, size_t bytes, const char* name) {
    of_libcuda<SoftCheck>("soft_check")(handle->context, data, bytes, name);
}

void check_matrix(const Handle* handle, const Matrix& matrix, const char* name) {
    if (matrix.ld < std::max(1, matrix.rows))
        die(std::string(name) + ": a leading dimension of " + std::to_string(matrix.ld) + " for " +
            std::to_string(matrix.rows) + " rows");
    if (matrix.rows > 0 && matrix.columns > 0) check_memory(handle, matrix.data, matrix.bytes(), name);
}

// The real one uses its workspace as it likes: who keeps something in it loses that.
void use_workspace(const Handle& handle) {
    if (!handle.workspace) return;
    memset(handle.workspace, 0xff, std::min(handle.workspace_bytes, size_t(64) << 10));
}

Status gemm(Handle* handle, int op_a, int op_b, Product product) {
    auto& [a, b, c, m, n, k, alpha, beta, round, round_sums] = product;
    bool are_ops = (op_a == OP_N || op_a == OP_T) && (op_b == OP_N || op_b == OP_T);
    if (m < 0 || n < 0 || k < 0 || !are_ops) return INVALID_VALUE;
    a.transposed = op_a == OP_T, a.rows = op_a == OP_N ? m : k, a.columns = op_a == OP_N ? k : m;
    b.transposed = op_b == OP_T, b.rows = op_b == OP_N ? k : n, b.columns = op_b == OP_N ? n : k;
    c.rows = m, c.columns = n;
    check_matrix(handle, a, "a");
    check_matrix(handle, b, "b");
    check_matrix(handle, c, "c");
    if (m == 0 || n == 0) return SUCCESS;
    if (k > 0 && (c.overlaps(a) || c.overlaps(b))) die("c overlaps an operand");
    if (of_libcuda<SoftContext>("soft_context")() != handle->context) die("the handle is of another context");
    if (of_libcuda<SoftCaptures>("soft_captures")(handle->context, handle->stream) && !handle->workspace)
        die("a product in a capture without a workspace: cublasSetStream forgets it");
    std::function<void()> work = [now = *handle, product] {
        use_workspace(now);
        multiply(product);
    };
    std::string what = "gemm " + std::to_string(m) + "x" + std::to_string(n) + "x" + std::to_string(k);
    int result = of_libcuda<SoftEnqueue>("soft_enqueue")(handle->context, handle->stream, what.c_str(), &work);
    return result == 0 ? SUCCESS : EXECUTION_FAILED;
}

// Which operands, results and roundings go together, and which GPUs have them.
Status supports(const Handle* handle, int a_type, int b_type, int c_type, int compute) {
    if (capability(handle) < 50) return ARCH_MISMATCH;
    bool is_fast = compute == COMPUTE_32F_FAST_16BF || compute == COMPUTE_32F_FAST_TF32;
    if (!is_fast && compute != COMPUTE_32F && compute != COMPUTE_32F_PEDANTIC) return NOT_SUPPORTED;
    bool is_bf16 = a_type == R_16BF && b_type == R_16BF && (c_type == R_16BF || c_type == R_32F);
    bool is_f32 = a_type == R_32F && b_type == R_32F && c_type == R_32F;
    if (!is_f32 && (!is_bf16 || is_fast)) return NOT_SUPPORTED;
    return (is_bf16 || is_fast) && capability(handle) < 80 ? NOT_SUPPORTED : SUCCESS;
}

// Whether the caller lets products of f32 be made in TF32, and the GPU has it.
bool may_use_tf32(const Handle* handle) {
    return (handle->math & ~MATH_SUMS_IN_F32) == MATH_TF32 && capability(handle) >= 80;
}

// What becomes of sums before they are added to others.
Rounding sums(const Handle* handle, int c_type) {
    return c_type == R_16BF && !(handle->math & MATH_SUMS_IN_F32) ? through_bf16 : keep;
}

}  // namespace

EXPORT Status cublasCreate_v2(Handle** handle) {
    void* context = of_libcuda<SoftContext>("soft_context")();
    if (!context) return NOT_INITIALIZED;
    *handle = new Handle{context};
    return SUCCESS;
}

EXPORT Status cublasDestroy_v2(Handle* handle) {
    delete handle;
    return handle ? SUCCESS : NOT_INITIALIZED;
}

// Of CUDA 11.8.
constexpr int VERSION[] = {11, 11, 3};

EXPORT Status cublasGetProperty(int property, int* value) {
    if (property < 0 || property > 2) return INVALID_VALUE;
    *value = VERSION[property];
    return SUCCESS;
}

EXPORT Status cublasSetStream_v2(Handle* handle, void* stream) {
    bool is_ours = of_libcuda<SoftOwns>("soft_owns")(handle->context, stream);
    if (!is_ours) die("a stream that is not of the handle's context");
    handle->stream = stream;
    handle->workspace = nullptr;
    return SUCCESS;
}

EXPORT Status cublasSetWorkspace_v2(Handle* handle, void* workspace, size_t bytes) {
    if (reinterpret_cast<uintptr_t>(workspace) % 256 != 0) return INVALID_VALUE;
    check_memory(handle, workspace, bytes, "the workspace");
    handle->workspace = workspace;
    handle->workspace_bytes = bytes;
    return SUCCESS;
}

EXPORT Status cublasSetMathMode(Handle* handle, int mode) {
    handle->math = mode;
    return SUCCESS;
}

EXPORT Status cublasSetAtomicsMode(Handle*, int mode) { return mode == 0 ? SUCCESS : NOT_SUPPORTED; }

EXPORT Status cublasSgemm_v2(Handle* handle, int op_a, int op_b, int m, int n, int k, const float* alpha,
                             const float* a, int lda, const float* b, int ldb, const float* beta, float* c, int ldc) {
    if (!handle) return NOT_INITIALIZED;
    Rounding round = may_use_tf32(handle) ? to_tf32 : keep;
    Matrix left = matrix(a, R_32F, lda), right = matrix(b, R_32F, ldb), result = matrix(c, R_32F, ldc);
    return gemm(handle, op_a, op_b, {left, right, result, m, n, k, *alpha, *beta, round, keep});
}

EXPORT Status cublasGemmEx(Handle* handle, int op_a, int op_b, int m, int n, int k, const void* alpha, const void* a,
                           int a_type, int lda, const void* b, int b_type, int ldb, const void* beta, void* c,
                           int c_type, int ldc, int compute, int) {
    if (!handle) return NOT_INITIALIZED;
    Status status = supports(handle, a_type, b_type, c_type, compute);
    if (status != SUCCESS) return status;
    bool is_tf32 = compute == COMPUTE_32F && a_type == R_32F && may_use_tf32(handle);
    Rounding round = is_tf32 ? to_tf32 : rounding(compute);
    Matrix left = matrix(a, a_type, lda), right = matrix(b, b_type, ldb), result = matrix(c, c_type, ldc);
    float factor = *static_cast<const float*>(alpha), old = *static_cast<const float*>(beta);
    Rounding round_sums = sums(handle, c_type);
    return gemm(handle, op_a, op_b, {left, right, result, m, n, k, factor, old, round, round_sums});
}
