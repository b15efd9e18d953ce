// Winograd's algorithm in one pass over the image, for winograd.py, which puts the matrices before this:
//
//   template <> struct Transforms<m> { static constexpr float INPUTS[n][n], FILTERS[n][3], OUTPUTS[m][n]; };
//
// Tiles are transformed in stripes that fit the cache. Then each thread takes WIDTH output channels at a time: it
// transforms their filters, multiplies, and transforms the products back, so that these stay in its own cache.
#include <algorithm>
#include <cstdint>
#include <vector>

using std::int64_t;

#ifdef __AVX512F__                          // with 32 registers
constexpr int LANES = 16, ROWS = 14;        // channels in a register; tiles whose products are in registers
#else
constexpr int LANES = 8, ROWS = 6;
#endif
constexpr int WIDTH = 2 * LANES;
constexpr int64_t ELEMENTS_IN_STRIPE = 1 << 22;

typedef float Vector __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

// Kept for the next call: allocated anew each time, it would fragment the heap.
static thread_local std::vector<float> kept_tiles, kept_products;

static float* at_least(std::vector<float>& memory, int64_t size) {
    if (static_cast<int64_t>(memory.size()) < size) memory.resize(size);
    return memory.data();
}

static inline Vector load(const float* source) { return *reinterpret_cast<const Vector*>(source); }
static inline void store(float* target, Vector values) { *reinterpret_cast<Vector*>(target) = values; }

// Transform a column of x to a column of y, in which elements are x_step and y_step apart. Zeros cost nothing.
template <int I, int K>
static inline void transform(const float (&matrix)[I][K], const Vector* x, int x_step, Vector* y, int y_step) {
    #pragma GCC unroll 8
    for (int i = 0; i < I; ++i) {
        Vector sum = {};
        #pragma GCC unroll 8
        for (int k = 0; k < K; ++k)
            if (matrix[i][k] != 0) sum += matrix[i][k] * x[k * x_step];
        y[i * y_step] = sum;
    }
}

// y = A x A^T for x (K, K) and y (I, I), for LANES channels at once.
template <int I, int K>
static inline void transform_both(const float (&matrix)[I][K], const Vector* x, Vector* y) {
    Vector half[I * K];
    for (int k = 0; k < K; ++k) transform(matrix, x + k, K, half + k, K);
    for (int i = 0; i < I; ++i) transform(matrix, half + i * K, 1, y + i * I, 1);
}

// (ROWS, channels) times (channels, WIDTH).
static void multiply(const float* tiles, int64_t tile_step, const float* filters, int64_t channels, float* products) {
    Vector sums[ROWS][2] = {};
    for (int64_t c = 0; c < channels; ++c) {
        const Vector first = load(filters + c * WIDTH), second = load(filters + c * WIDTH + LANES);
        #pragma GCC unroll 16
        for (int row = 0; row < ROWS; ++row) {
            sums[row][0] += tiles[row * tile_step + c] * first;
            sums[row][1] += tiles[row * tile_step + c] * second;
        }
    }
    #pragma GCC unroll 16
    for (int row = 0; row < ROWS; ++row) {
        store(products + row * WIDTH, sums[row][0]);
        store(products + row * WIDTH + LANES, sums[row][1]);
    }
}

// A convolution with tiles of m x m outputs; the arguments of `winograd` below.
template <int m>
struct Convolution {
    const float* image;
    int64_t height, width, channels;
    bool relu;
    const float* weight;
    const int64_t* steps;
    int64_t outputs;
    const float* bias;
    float* result;

    static constexpr int n = m + 2;
    using Matrices = Transforms<m>;

    // One matrix product for each of the n * n values of a tile: the panels (tiles, channels) of tiles, (channels, WIDTH)
    // of filters and (tiles, WIDTH) of products. Their steps are no powers of two, for which elements that are used
    // together would share a set of the cache.
    int64_t columns = (width + m - 1) / m, count = (height + m - 1) / m * columns;
    int64_t stripes = (n * n * count * channels + ELEMENTS_IN_STRIPE - 1) / ELEMENTS_IN_STRIPE;
    int64_t in_stripe = ((count + stripes - 1) / stripes + ROWS - 1) / ROWS * ROWS;
    int64_t tile_step = channels + LANES, tiles_panel = in_stripe * tile_step;
    int64_t filters_panel = channels * WIDTH + LANES, products_panel = in_stripe * WIDTH + LANES;

    void run(int threads) const {
        float* const tiles = at_least(kept_tiles, n * n * tiles_panel);
        const std::vector<float> outside(channels);
        #pragma omp parallel num_threads(threads)
        {
            float* const filters = at_least(kept_products, n * n * (filters_panel + products_panel));
            float* const products = filters + n * n * filters_panel;
            for (int64_t first = 0; first < count; first += in_stripe) {
                const int64_t last = std::min(first + in_stripe, count);
                #pragma omp for schedule(dynamic, 4)
                for (int64_t tile = first; tile < last; ++tile)
                    transform_tile(tile, outside.data(), tiles + (tile - first) * tile_step);
                #pragma omp for schedule(dynamic)
                for (int64_t output = 0; output < outputs; output += WIDTH) {
                    transform_filters(output, filters);
                    for (int i = 0; i < n * n; ++i)
                        for (int64_t tile = 0; tile < last - first; tile += ROWS)
                            multiply(tiles + i * tiles_panel + tile * tile_step, tile_step, filters + i * filters_panel,
                                     channels, products + i * products_panel + tile * WIDTH);
                    for (int64_t tile = first; tile < last; ++tile)
                        transform_back(tile, products + (tile - first) * WIDTH, output);
                }
            }
        }
    }

    void transform_tile(int64_t tile, const float* outside, float* target) const {
        const float* pixels[n * n];
        for (int i = 0; i < n * n; ++i) {
            const int64_t row = tile / columns * m + i / n - 1, column = tile % columns * m + i % n - 1;
            const bool inside = row >= 0 && row < height && column >= 0 && column < width;
            pixels[i] = inside ? image + (row * width + column) * channels : outside;
        }
        for (int64_t c = 0; c < channels; c += LANES) {
            Vector values[n * n], transformed[n * n];
            for (int i = 0; i < n * n; ++i) {
                values[i] = load(pixels[i] + c);
                if (relu) values[i] = values[i] < Vector{} ? Vector{} : values[i];
            }
            transform_both(Matrices::INPUTS, values, transformed);
            for (int i = 0; i < n * n; ++i) store(target + i * tiles_panel + c, transformed[i]);
        }
    }

    void transform_filters(int64_t output, float* target) const {
        for (int64_t first = 0; first < channels; first += LANES) {
            float taps[LANES][9][WIDTH];
            for (int o = 0; o < WIDTH; ++o)
                for (int i = 0; i < 9; ++i)
                    for (int c = 0; c < LANES; ++c)
                        taps[c][i][o] = weight[(output + o) * steps[0] + (first + c) * steps[1] + i / 3 * steps[2]
                                               + i % 3 * steps[3]];
            for (int c = 0; c < LANES; ++c)
                for (int o = 0; o < WIDTH; o += LANES) {
                    Vector values[9], transformed[n * n];
                    for (int i = 0; i < 9; ++i) values[i] = load(taps[c][i] + o);
                    transform_both(Matrices::FILTERS, values, transformed);
                    for (int i = 0; i < n * n; ++i)
                        store(target + i * filters_panel + (first + c) * WIDTH + o, transformed[i]);
                }
        }
    }

    void transform_back(int64_t tile, const float* products, int64_t output) const {
        for (int o = 0; o < WIDTH; o += LANES) {
            Vector values[n * n], transformed[m * m];
            for (int i = 0; i < n * n; ++i) values[i] = load(products + i * products_panel + o);
            transform_both(Matrices::OUTPUTS, values, transformed);
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
// outputs). channels and outputs must be multiples of 16 and 32. The steps are those of weight (outputs, channels, 3, 3)
// in memory. bias (outputs) may be null.
extern "C" void winograd(int m, const float* image, int64_t height, int64_t width, int64_t channels, int relu,
                         const float* weight, const int64_t* steps, int64_t outputs, const float* bias, float* result,
                         int threads) {
    if (m == 4)
        Convolution<4>{image, height, width, channels, relu != 0, weight, steps, outputs, bias, result}.run(threads);
    else
        Convolution<6>{image, height, width, channels, relu != 0, weight, steps, outputs, bias, result}.run(threads);
}
