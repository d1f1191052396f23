// Multiplies by 0 or 1 / keep. Word i of the layer's Philox stream makes decision i: the same function
// as in Rust. The coordinates lie in memory, so that a graph of launches serves every step.
//
// Occupancy: 75 % or more.

struct Coordinates { unsigned key[2], step, replica; };

constexpr unsigned PURPOSE_DROPOUT = 3;

__device__ void philox(unsigned counter[4], unsigned k0, unsigned k1) {
    for (int round = 0; round < 10; round++) {
        unsigned high0 = __umulhi(0xD2511F53u, counter[0]), low0 = 0xD2511F53u * counter[0];
        unsigned high1 = __umulhi(0xCD9E8D57u, counter[2]), low1 = 0xCD9E8D57u * counter[2];
        counter[0] = high1 ^ counter[1] ^ k0;
        counter[1] = low1;
        counter[2] = high0 ^ counter[3] ^ k1;
        counter[3] = low0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
}

// 0 or 1 / keep for each decision; a thread makes four.
extern "C" __global__ void dropout_factors(const Coordinates* coordinates, int layer, float keep, float kept, float* factors,
                                           int decisions) {
    int block = item();
    if (block * 4 >= decisions) return;
    Coordinates at = *coordinates;
    unsigned words[4] = {unsigned(block), at.step, at.replica << 16 | unsigned(layer), PURPOSE_DROPOUT};
    philox(words, at.key[0], at.key[1]);
    for (int lane = 0; lane < 4 && block * 4 + lane < decisions; lane++)
        factors[block * 4 + lane] = float(words[lane] >> 8) * (1.0f / 16777216.0f) < keep ? kept : 0.0f;
}

template <class V>
__device__ void multiply(V* tensor, const float* factors, Matrix matrix, int pixels, int count) {
    constexpr int W = Width<V>::of;
    int index = item();
    if (index >= count) return;
    int channel = index % matrix.c, row = index / matrix.c;
    int decision = pixels ? row / pixels * matrix.c + channel : index;
    V& to = tensor[row * matrix.ld + channel];
    float numbers[W];
    unpack(to, numbers);
    for (int i = 0; i < W; i++) numbers[i] *= factors[decision * W + i];
    pack(numbers, to);
}

// One factor for each number, or for each channel of an image of `pixels` pixels.
extern "C" __global__ void dropout(Number* tensor, const float* factors, Matrix matrix, int pixels, int count) {
    multiply(tensor, factors, matrix, pixels, count);
}

extern "C" __global__ void dropout_wide(Wide* tensor, const float* factors, Matrix matrix, int pixels, int count) {
    multiply(tensor, factors, matrix, pixels, count);
}
