// CUDA C++ on the host: what a .cu file needs to be compiled by g++ and run by `fibers.h`.
#pragma once
#include <cmath>

#include "fibers.h"

#define __global__ __attribute__((visibility("hidden")))
#define __device__ static inline
#define __forceinline__
#define __launch_bounds__(...)
#define __shared__ static __attribute__((section("hw2_shared")))

struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

#define threadIdx (soft::thread_index)
#define blockIdx (soft::block_index)
#define blockDim (soft::block)
#define gridDim (soft::grid)

// Macros, so that each place where threads meet has its own number.
#define SOFT_MEETING (soft::Meeting{{__COUNTER__, __LINE__}})
#define __syncthreads SOFT_MEETING.block
#define __syncwarp SOFT_MEETING.warp
#define __shfl_xor_sync SOFT_MEETING.xor_lane
#define __shfl_down_sync SOFT_MEETING.lane_above

static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fsub_rn(float a, float b) { return a - b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline unsigned __umulhi(unsigned a, unsigned b) { return uint64_t(a) * b >> 32; }
static inline unsigned __float_as_uint(float value) { unsigned bits; memcpy(&bits, &value, 4); return bits; }
static inline float __uint_as_float(unsigned bits) { float value; memcpy(&value, &bits, 4); return value; }
using std::max;
using std::min;
