// From photos to the images of a batch: crop, resize, mirror, colours, standardisation. What was decided
// about each photo comes with it.
//
// Occupancy: 50 % or more.

// Comes first in an upload, for each photo; the squares follow, (side, side, 3) bytes each.
struct Photo {
    unsigned long long offset;  // of its square, in bytes from the first record
    int side, flags;
    float brightness, contrast;
};

constexpr int MIRRORED = 1;
constexpr int COLOURED = 2;

// The pixels that one output pixel is a weighted mean of, along one axis: a triangle as wide as the scale, with weights
// that are normalised where it leaves the square.
struct Taps {
    double centre, inverse_radius, inverse_sum;
    int first, end;
};

__device__ __forceinline__ double triangle(Taps taps, int pixel) {
    double distance = (pixel + 0.5 - taps.centre) * taps.inverse_radius;
    double weight = 1.0 - (distance < 0.0 ? -distance : distance);
    return weight > 0.0 ? weight : 0.0;
}

__device__ __forceinline__ float weight_of(Taps taps, int pixel) { return float(triangle(taps, pixel) * taps.inverse_sum); }

__device__ Taps taps_of(int index, int side, int size) {
    double scale = double(side) / size, radius = scale > 1.0 ? scale : 1.0;
    Taps taps;
    taps.centre = (index + 0.5) * scale;
    taps.inverse_radius = 1.0 / radius;
    double first = taps.centre - radius + 0.5;
    taps.first = first > 0.0 ? int(first) : 0;
    int end = int(taps.centre + radius + 0.5);
    taps.end = end < side ? end : side;
    double sum = 0.0;
    for (int pixel = taps.first; pixel < taps.end; pixel++) sum += triangle(taps, pixel);
    taps.inverse_sum = 1.0 / sum;
    return taps;
}

// Bilinear with antialiasing, values 0 to 255; a thread for each output pixel.
extern "C" __global__ void augment_resize(const unsigned char* photos, float* resized, int size, int count) {
    int index = item();
    if (index >= count) return;
    Photo photo = reinterpret_cast<const Photo*>(photos)[index / (size * size)];
    const unsigned char* square = photos + photo.offset;
    int place = index % (size * size);
    Taps rows = taps_of(place / size, photo.side, size), columns = taps_of(place % size, photo.side, size);
    float sum[3] = {0.0f, 0.0f, 0.0f};
    for (int x = columns.first; x < columns.end; x++) {
        float column[3] = {0.0f, 0.0f, 0.0f};
        for (int y = rows.first; y < rows.end; y++) {
            float weight = weight_of(rows, y);
            const unsigned char* pixel = square + 3 * ((long long)y * photo.side + x);
            for (int c = 0; c < 3; c++) column[c] += weight * float(pixel[c]);
        }
        float weight = weight_of(columns, x);
        for (int c = 0; c < 3; c++) sum[c] += weight * column[c];
    }
    for (int c = 0; c < 3; c++) resized[3 * (long long)index + c] = sum[c];
}

// Brightness, contrast about each channel's mean, then mean 0 and deviation 1, the deviation being at least 1 / sqrt(n);
// a block for each image, whose threads each keep to their own pixels until the last pass, which mirrors.
extern "C" __global__ void augment_colours(const unsigned char* photos, float* resized, Number* output, int size) {
    __shared__ Pair shared[THREADS];
    Photo photo = reinterpret_cast<const Photo*>(photos)[blockIdx.x];
    int pixels = size * size;
    float* image = resized + 3 * (long long)blockIdx.x * pixels;
    output += 3 * (long long)blockIdx.x * pixels;
    if (photo.flags & COLOURED) {
        Pair red_green = {0.0, 0.0}, blue = {0.0, 0.0};
        for (int pixel = threadIdx.x; pixel < pixels; pixel += THREADS) {
            float* at = image + 3 * pixel;
            for (int c = 0; c < 3; c++) at[c] += photo.brightness;
            red_green = add(red_green, Pair{at[0], at[1]});
            blue.a += at[2];
        }
        red_green = sum_of_threads(shared, red_green);
        __syncthreads();
        blue = sum_of_threads(shared, blue);
        __syncthreads();
        float means[3] = {float(red_green.a / pixels), float(red_green.b / pixels), float(blue.a / pixels)};
        for (int pixel = threadIdx.x; pixel < pixels; pixel += THREADS) {
            float* at = image + 3 * pixel;
            for (int c = 0; c < 3; c++) at[c] = (at[c] - means[c]) * photo.contrast + means[c];
        }
    }
    double n = 3.0 * pixels;
    Pair sum = {0.0, 0.0};
    for (int pixel = threadIdx.x; pixel < pixels; pixel += THREADS)
        for (int c = 0; c < 3; c++) sum.a += image[3 * pixel + c];
    double mean = sum_of_threads(shared, sum).a / n;
    __syncthreads();
    Pair squares = {0.0, 0.0};
    for (int pixel = threadIdx.x; pixel < pixels; pixel += THREADS) {
        for (int c = 0; c < 3; c++) {
            double distance = image[3 * pixel + c] - mean;
            squares.a += distance * distance;
        }
    }
    double deviation = sqrt(sum_of_threads(shared, squares).a / n), least = 1.0 / sqrt(n);
    float factor = float(1.0 / (deviation > least ? deviation : least)), middle = float(mean);
    for (int pixel = threadIdx.x; pixel < pixels; pixel += THREADS) {
        int x = pixel % size, to = photo.flags & MIRRORED ? pixel - x + (size - 1 - x) : pixel;
        for (int c = 0; c < 3; c++) output[3 * to + c] = rounded((image[3 * pixel + c] - middle) * factor);
    }
}
