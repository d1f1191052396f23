// What libnvrtc, libcuda and the kernels agree on.
#pragma once

// What a "cubin" begins with. The compute capability it is for comes next, as 80, then the path of a
// shared object.
constexpr char SOFT_CUBIN[] = "software GPU cubin sm_";

// What libcuda hands to a kernel's entry point.
struct SoftLaunch {
    unsigned grid[3], block[3];
    // Of the orders in which blocks and threads run; 0 is that of their indices.
    unsigned seed;
    void** args;
};
