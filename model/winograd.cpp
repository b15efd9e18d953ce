// Winograd's algorithm in one pass over the image, for winograd.py, which puts vectors.h and the matrices before this:
//
//   template <> struct Transforms<m> { static constexpr float INPUTS[n][n], FILTERS[n][3], OUTPUTS[m][n]; };
//
// Tiles are transformed in stripes that fit the cache. Then each thread takes WIDTH output channels at a time: it
// transforms their filters, multiplies, and transforms the products back, so that these stay in its own cache.
constexpr int64_t ELEMENTS_IN_STRIPE = LANES << 18;     // of transformed tiles: 16 MB with AVX-512, 8 MB with AVX2

// Transform a column of x to a column of y, with strides between their elements. Zeros in the matrix cost nothing.
template <int I, int K>
static inline void transform(const float (&matrix)[I][K], const Vector* x, int x_stride, Vector* y, int y_stride) {
    #pragma GCC unroll 8
    for (int i = 0; i < I; ++i) {
        Vector sum = {};
        #pragma GCC unroll 8
        for (int k = 0; k < K; ++k)
            if (matrix[i][k] != 0) sum += matrix[i][k] * x[k * x_stride];
        y[i * y_stride] = sum;
    }
}

// y = A x A^T for x (K, K) and y (I, I), for LANES channels at once.
template <int I, int K>
static inline void transform_2d(const float (&matrix)[I][K], const Vector* x, Vector* y) {
    Vector half[I * K];
    for (int k = 0; k < K; ++k) transform(matrix, x + k, K, half + k, K);
    for (int i = 0; i < I; ++i) transform(matrix, half + i * K, 1, y + i * I, 1);
}

// A convolution with tiles of m x m outputs; its arguments are those of `winograd` below.
template <int m>
struct Convolution {
    const float* image;
    int64_t height, width, channels;
    bool relu;
    const float* weight;
    int64_t output_stride, channel_stride, row_stride, column_stride;
    int64_t outputs;
    const float* bias;
    float* result;

    static constexpr int n = m + 2;
    using Matrices = Transforms<m>;

    // There is one matrix product for each of the n * n values of a tile, of the panels (tiles, channels) and
    // (channels, WIDTH). Strides are padded: with powers of two, these elements would map to the same cache set.
    int64_t columns = (width + m - 1) / m, count = (height + m - 1) / m * columns;
    int64_t stripes = std::max<int64_t>(1, (n * n * count * channels + ELEMENTS_IN_STRIPE - 1) / ELEMENTS_IN_STRIPE);
    int64_t tiles_in_stripe = ((count + stripes - 1) / stripes + ROWS - 1) / ROWS * ROWS;
    int64_t tile_stride = channels + LANES, tiles_panel = tiles_in_stripe * tile_stride;
    int64_t filters_panel = channels * WIDTH + LANES, products_panel = tiles_in_stripe * WIDTH + LANES;

    void run(int64_t threads) const {
        const int64_t shared = n * n * tiles_panel, per_thread = n * n * (filters_panel + products_panel);
        float* const zeros = workspace(channels + shared + threads * per_thread);
        float* const tiles = zeros + channels;
        std::fill_n(zeros, channels, 0.f);
        #pragma omp parallel num_threads(threads)
        {
            float* const filters = tiles + shared + omp_get_thread_num() * per_thread;
            float* const products = filters + n * n * filters_panel;
            for (int64_t first = 0; first < count; first += tiles_in_stripe) {
                const int64_t last = std::min(first + tiles_in_stripe, count);
                #pragma omp for schedule(dynamic, 4)
                for (int64_t tile = first; tile < last; ++tile)
                    transform_tile(tile, zeros, tiles + (tile - first) * tile_stride);
                #pragma omp for schedule(dynamic)
                for (int64_t output = 0; output < outputs; output += WIDTH) {
                    transform_filters(output, filters);
                    for (int i = 0; i < n * n; ++i)
                        for (int64_t tile = 0; tile < last - first; tile += ROWS)
                            multiply(tiles + i * tiles_panel + tile * tile_stride, tile_stride, filters + i * filters_panel,
                                     channels, products + i * products_panel + tile * WIDTH, WIDTH);
                    for (int64_t tile = first; tile < last; ++tile)
                        transform_back(tile, products + (tile - first) * WIDTH, output);
                }
            }
        }
    }

    void transform_tile(int64_t tile, const float* zeros, float* target) const {
        const float* pixels[n * n];
        for (int i = 0; i < n * n; ++i) {
            const int64_t row = tile / columns * m + i / n - 1, column = tile % columns * m + i % n - 1;
            const bool inside = row >= 0 && row < height && column >= 0 && column < width;
            pixels[i] = inside ? image + (row * width + column) * channels : zeros;
        }
        for (int64_t c = 0; c < channels; c += LANES) {
            Vector values[n * n], transformed[n * n];
            for (int i = 0; i < n * n; ++i) {
                values[i] = load(pixels[i] + c);
                if (relu) values[i] = values[i] < Vector{} ? Vector{} : values[i];
            }
            transform_2d(Matrices::INPUTS, values, transformed);
            for (int i = 0; i < n * n; ++i) store(target + i * tiles_panel + c, transformed[i]);
        }
    }

    void transform_filters(int64_t output, float* target) const {
        for (int64_t first = 0; first < channels; first += LANES) {
            float taps[LANES][9][WIDTH];
            for (int o = 0; o < WIDTH; ++o)
                for (int i = 0; i < 9; ++i)
                    for (int c = 0; c < LANES; ++c)
                        taps[c][i][o] = weight[(output + o) * output_stride + (first + c) * channel_stride
                                               + i / 3 * row_stride + i % 3 * column_stride];
            for (int c = 0; c < LANES; ++c)
                for (int o = 0; o < WIDTH; o += LANES) {
                    Vector values[9], transformed[n * n];
                    for (int i = 0; i < 9; ++i) values[i] = load(taps[c][i] + o);
                    transform_2d(Matrices::FILTERS, values, transformed);
                    for (int i = 0; i < n * n; ++i)
                        store(target + i * filters_panel + (first + c) * WIDTH + o, transformed[i]);
                }
        }
    }

    void transform_back(int64_t tile, const float* products, int64_t output) const {
        for (int o = 0; o < WIDTH; o += LANES) {
            Vector values[n * n], transformed[m * m];
            for (int i = 0; i < n * n; ++i) values[i] = load(products + i * products_panel + o);
            transform_2d(Matrices::OUTPUTS, values, transformed);
            const Vector offset = bias ? load(bias + output + o) : Vector{};
            for (int i = 0; i < m * m; ++i) {
                const int64_t row = tile / columns * m + i / m, column = tile % columns * m + i % m;
                if (row < height && column < width)
                    store(result + (row * width + column) * outputs + output + o, transformed[i] + offset);
            }
        }
    }
};

// Convolve an image (height, width, channels), padded with zeros, after relu if asked, to result (height, width,
// outputs). channels and outputs must be multiples of 16 and 32. The strides are those of weight (outputs, channels, 3,
// 3). bias (outputs) may be null. Returns 1 if there is not enough memory, else 0.
extern "C" int winograd(int64_t m, const float* image, int64_t height, int64_t width, int64_t channels, int64_t relu,
                        const float* weight, int64_t output_stride, int64_t channel_stride, int64_t row_stride,
                        int64_t column_stride, int64_t outputs, const float* bias, float* result, int64_t threads) try {
    if (m == 4)
        Convolution<4>{image, height, width, channels, relu != 0, weight, output_stride, channel_stride, row_stride,
                       column_stride, outputs, bias, result}.run(threads);
    else
        Convolution<6>{image, height, width, channels, relu != 0, weight, output_stride, channel_stride, row_stride,
                       column_stride, outputs, bias, result}.run(threads);
    return 0;
} catch (const std::bad_alloc&) {
    return 1;
}
