// What libcublas asks of libcuda here: to do something in the order of a stream.
#pragma once
#include <cstddef>
#include <functional>

// A function that programs look up by its name. The libraries show nothing else.
#define EXPORT extern "C" __attribute__((visibility("default")))

// The context that is current in this thread; null if there is none.
typedef void* (*SoftContext)();
// Compute capability of its GPU: 80 for 8.0.
typedef int (*SoftCapability)(void* context);
// Whether `stream`, null for the context's own, is the context's and captures now.
typedef bool (*SoftOwns)(void* context, void* stream);
typedef bool (*SoftCaptures)(void* context, void* stream);
// Adds `work` to `stream`, under a name and with numbers that the log shows; takes ownership of nothing.
// Returns a CUresult.
typedef int (*SoftEnqueue)(void* context, void* stream, const char* what, std::function<void()>* work);
// Ends the process unless [pointer, pointer + bytes) is memory of one allocation on the context's GPU.
typedef void (*SoftCheck)(void* context, const void* pointer, size_t bytes, const char* what);
