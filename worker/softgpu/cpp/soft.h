// What libcublas asks of libcuda here: to do something in the order of a stream.
#pragma once
#include <cstddef>
#include <functional>

extern "C" {
// Adds `work` to `stream`, under a name and with numbers that the log shows. Takes ownership of nothing.
typedef void (*SoftEnqueue)(void* stream, const char* what, std::function<void()>* work);
// Ends the process unless [pointer, pointer + bytes) is device memory of one allocation.
typedef void (*SoftCheck)(const void* pointer, size_t bytes, const char* what);
}
