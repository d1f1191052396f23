// Sets a gradient to zero where the result of the ReLU is not positive.
//
// Occupancy: 75 % or more.

template <class V>
__device__ void close(const V* output, V* grad, Matrix matrix, int grad_ld, int count) {
    int index = item();
    if (index >= count) return;
    int channel = index % matrix.c, row = index / matrix.c;
    float made[Width<V>::of], sums[Width<V>::of];
    V& to = grad[row * grad_ld + channel];
    unpack(output[row * matrix.ld + channel], made);
    unpack(to, sums);
    for (int i = 0; i < Width<V>::of; i++)
        if (!(made[i] > 0.0f)) sums[i] = 0.0f;
    pack(sums, to);
}

extern "C" __global__ void relu_backward(const Number* output, Number* grad, Matrix matrix, int grad_ld, int count) {
    close(output, grad, matrix, grad_ld, count);
}

extern "C" __global__ void relu_backward_wide(const Wide* output, Wide* grad, Matrix matrix, int grad_ld, int count) {
    close(output, grad, matrix, grad_ld, count);
}
