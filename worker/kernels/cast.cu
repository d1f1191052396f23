// Moves rows of numbers from one place to another, from one format to another: full (f32), number (what
// activations are), or byte (whole numbers from 0 to 255).
//
// Occupancy: 75 % or more.

__device__ __forceinline__ void store(float& to, float value) { to = value; }
__device__ __forceinline__ void store(unsigned char& to, float value) { to = (unsigned char)value; }
#ifdef BF16
__device__ __forceinline__ void store(Number& to, float value) { to = rounded(value); }
#endif
__device__ __forceinline__ float value(unsigned char number) { return number; }

// input, `in` says how; output (rows, c), from one row to the next out_ld numbers.
template <class I, class O>
__device__ void move(const I* input, O* output, Matrix in, int out_ld, int count) {
    int index = item();
    if (index >= count) return;
    int row = index / in.c, c = index % in.c;
    store(output[row * out_ld + c], value(input[row * in.ld + c]));
}

extern "C" __global__ void cast_full_full(const float* input, float* output, Matrix in, int out_ld, int count) {
    move(input, output, in, out_ld, count);
}

extern "C" __global__ void cast_full_number(const float* input, Number* output, Matrix in, int out_ld, int count) {
    move(input, output, in, out_ld, count);
}

extern "C" __global__ void cast_number_full(const Number* input, float* output, Matrix in, int out_ld, int count) {
    move(input, output, in, out_ld, count);
}

extern "C" __global__ void cast_number_number(const Number* input, Number* output, Matrix in, int out_ld, int count) {
    move(input, output, in, out_ld, count);
}

extern "C" __global__ void cast_full_byte(const float* input, unsigned char* output, Matrix in, int out_ld, int count) {
    move(input, output, in, out_ld, count);
}

extern "C" __global__ void cast_byte_full(const unsigned char* input, float* output, Matrix in, int out_ld, int count) {
    move(input, output, in, out_ld, count);
}

// The first `count` numbers of output are those of input, the others up to `len` are zeros.
extern "C" __global__ void fill_up(const Number* input, Number* output, int count, int len) {
    int index = item();
    if (index < len) output[index] = index < count ? input[index] : rounded(0.0f);
}

// output = a + b; it may be one of them.
extern "C" __global__ void add(const float* a, const float* b, float* output, int count) {
    int index = item();
    if (index < count) output[index] = a[index] + b[index];
}

// Three matrices of `rows` rows side by side, in one.
extern "C" __global__ void join_columns(const Number* a, const Number* b, const Number* c, Number* output, int a_len, int b_len,
                                        int c_len, int count) {
    int index = item();
    if (index >= count) return;
    int len = a_len + b_len + c_len, row = index / len, column = index % len;
    output[index] = column < a_len           ? a[row * a_len + column]
                    : column < a_len + b_len ? b[row * b_len + column - a_len]
                                             : c[row * c_len + column - a_len - b_len];
}

// And back.
extern "C" __global__ void split_columns(const float* input, float* a, float* b, float* c, int a_len, int b_len, int c_len,
                                         int count) {
    int index = item();
    if (index >= count) return;
    int len = a_len + b_len + c_len, row = index / len, column = index % len;
    if (column < a_len) a[row * a_len + column] = input[index];
    else if (column < a_len + b_len) b[row * b_len + column - a_len] = input[index];
    else c[row * c_len + column - a_len - b_len] = input[index];
}
