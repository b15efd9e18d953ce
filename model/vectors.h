// Vectors of floats, and the matrix product of winograd.cpp and memory_reader.cpp, which follow this.
#include <algorithm>
#include <cstdint>
#include <new>
#include <omp.h>
#include <vector>

using std::int64_t;

#ifdef __AVX512F__                          // with 32 registers
constexpr int LANES = 16, ROWS = 14;        // floats in a register; rows whose products are in registers
#else
constexpr int LANES = 8, ROWS = 6;
#endif
constexpr int WIDTH = 2 * LANES;            // columns whose products are in registers

typedef float Vector __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

static inline Vector load(const float* source) { return *reinterpret_cast<const Vector*>(source); }
static inline void store(float* target, Vector values) { *reinterpret_cast<Vector*>(target) = values; }

// Working memory. It is kept for the next call: allocated anew each time, it would fragment the heap.
static float* workspace(int64_t size) {
    static thread_local std::vector<float> kept;
    if (static_cast<int64_t>(kept.size()) < size) {
        kept = {};
        kept.resize(size);
    }
    return kept.data();
}

// product (ROWS, WIDTH) = left (ROWS, channels) right (channels, WIDTH). The strides are those between rows.
static inline void multiply(const float* left, int64_t left_stride, const float* right, int64_t channels, float* product,
                            int64_t product_stride) {
    Vector sums[ROWS][2] = {};
    for (int64_t c = 0; c < channels; ++c) {
        const Vector first = load(right + c * WIDTH), second = load(right + c * WIDTH + LANES);
        #pragma GCC unroll 16
        for (int row = 0; row < ROWS; ++row) {
            sums[row][0] += left[row * left_stride + c] * first;
            sums[row][1] += left[row * left_stride + c] * second;
        }
    }
    #pragma GCC unroll 16
    for (int row = 0; row < ROWS; ++row) {
        store(product + row * product_stride, sums[row][0]);
        store(product + row * product_stride + LANES, sums[row][1]);
    }
}
