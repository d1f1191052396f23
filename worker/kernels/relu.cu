// Sets a gradient to zero where the result of the ReLU is not positive.
//
// Occupancy: 75 % or more.

extern "C" __global__ void relu_backward(const Number* output, Number* grad, Matrix matrix, int grad_ld, int count) {
    int index = item();
    if (index >= count) return;
    int channel = index % matrix.c, row = index / matrix.c;
    if (!(value(output[row * matrix.ld + channel]) > 0.0f)) grad[row * grad_ld + channel] = rounded(0.0f);
}
