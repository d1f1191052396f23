// Sets a gradient to zero where the result of the ReLU is not positive.
//
// Occupancy: 75 % or more.

extern "C" __global__ void relu_backward(const float* output, float* grad, Matrix matrix, int grad_ld, int count) {
    int index = item();
    if (index >= count) return;
    int channel = index % matrix.c, row = index / matrix.c;
    float& to = grad[row * grad_ld + channel];
    to = output[row * matrix.ld + channel] > 0.0f ? to : 0.0f;
}
