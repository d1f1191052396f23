// The largest of each window; the first of equal ones wins. One thread for each number.
//
// Occupancy: 75 % or more.

// output and places (n, out_h, out_w, c); a place is row * kernel_size + column. `places` may be null.
extern "C" __global__ void max_pool_forward(const Number* input, Number* output, unsigned char* places, Window window, int c, int in_ld,
                                            int out_ld, int places_ld, int count) {
    int index = item();
    if (index >= count) return;
    int channel = index % c, row = index / c;
    int ox = row % window.out_w, rest = row / window.out_w;
    int oy = rest % window.out_h, n = rest / window.out_h;
    float largest = 0.0f;
    int found = -1;
    for (int place = 0; place < window.kernel_size * window.kernel_size; place++) {
        int y = oy * window.stride + place / window.kernel_size - window.top;
        int x = ox * window.stride + place % window.kernel_size - window.left;
        if (y < 0 || y >= window.h || x < 0 || x >= window.w) continue;
        float number = value(input[((n * window.h + y) * window.w + x) * in_ld + channel]);
        if (found < 0 || number > largest) {
            largest = number;
            found = place;
        }
    }
    output[row * out_ld + channel] = rounded(largest);
    if (places) places[row * places_ld + channel] = (unsigned char)found;
}

// grad_input (n, h, w, c), overwritten or added to: each pixel asks the windows that see it.
extern "C" __global__ void max_pool_backward(const Number* grad_output, const unsigned char* places, Number* grad_input, Window window,
                                             int c, int out_ld, int places_ld, int in_ld, int adds, int count) {
    int index = item();
    if (index >= count) return;
    int channel = index % c, pixel = index / c;
    int x = pixel % window.w, rest = pixel / window.w;
    int y = rest % window.h, n = rest / window.h;
    int k = window.kernel_size, stride = window.stride;
    int bottom = y + window.top, right = x + window.left;
    int first_oy = first_place(bottom, window), first_ox = first_place(right, window);
    Number& to = grad_input[pixel * in_ld + channel];
    float sum = adds ? value(to) : 0.0f;
    for (int oy = first_oy; oy < window.out_h && oy * stride <= bottom; oy++)
        for (int ox = first_ox; ox < window.out_w && ox * stride <= right; ox++) {
            int row = (n * window.out_h + oy) * window.out_w + ox;
            int place = (bottom - oy * stride) * k + right - ox * stride;
            if (places[row * places_ld + channel] == place) sum += value(grad_output[row * out_ld + channel]);
        }
    to = rounded(sum);
}
