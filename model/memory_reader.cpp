// The search for the top k, for memory_reader.py: affinities, the Gaussian of kernelized reading and the k largest, in one
// pass over the memory, tile by tile. vectors.h is put before this.
#include <cmath>
#include <immintrin.h>

constexpr int64_t ELEMENTS_IN_TILE = 1 << 21;           // affinities that are computed before their largest are taken
constexpr int QUERIES = 128;                            // of which a thread takes the largest affinities

// A bit for each lane in which left is larger, or one of them is no number.
static inline unsigned is_larger(Vector left, Vector right) {
#ifdef __AVX512F__
    return _mm512_cmp_ps_mask(left, right, _CMP_NLE_UQ);
#else
    return _mm256_movemask_ps(_mm256_cmp_ps(left, right, _CMP_NLE_UQ));
#endif
}

// Replace the lowest of the k scores in a heap, which is the first, and its index.
static void replace_lowest(float* scores, int64_t* indices, int64_t k, float score, int64_t index) {
    int64_t place = 0;
    for (int64_t child = 1; child < k; child = 2 * place + 1) {
        if (child + 1 < k && scores[child + 1] < scores[child]) ++child;
        if (score <= scores[child]) break;
        scores[place] = scores[child], indices[place] = indices[child];
        place = child;
    }
    scores[place] = score, indices[place] = index;
}

// The first index of the largest of values.
static int64_t argmax(const float* values, int64_t count) {
    float largest[LANES], at[LANES];
    for (int lane = 0; lane < LANES; ++lane) largest[lane] = -INFINITY, at[lane] = lane;
    Vector peaks = load(largest), places = load(at), here = places;     // places in float32, exact up to 2^24
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES, here += LANES) {
        const Vector next = load(values + i);
        places = next > peaks ? here : places;
        peaks = next > peaks ? next : peaks;
    }
    store(largest, peaks), store(at, places);
    float peak = largest[0];
    int64_t place = static_cast<int64_t>(at[0]);
    for (int lane = 1; lane < LANES; ++lane)
        if (largest[lane] > peak || (largest[lane] == peak && at[lane] < place)) peak = largest[lane], place = at[lane];
    for (; i < count; ++i)
        if (values[i] > peak) peak = values[i], place = i;
    return std::min(place, count - 1);
}

// Add the Gaussian's exponent to a memory location's affinities to all queries; up to a term of the query alone, see
// `Kernel` in memory_reader.py.
static void weight(float* affinities, int64_t count, const float* positions) {
    const int64_t centre = argmax(affinities, count);
    const float y = positions[centre], x = positions[count + centre], norm = (y * y + x * x) / 2;
    for (int64_t query = 0; query < count; ++query)
        affinities[query] += y * positions[query] + x * positions[count + query] - norm;
}

// Update the k largest scores of each query by those of further memory locations.
//
// queries: (count, channels), scaled. keys: (locations, channels), the first of which has the index `first`. positions:
// (2, count) coordinates of the queries, in standard deviations of the Gaussian, or null. scores, indices: (count, k),
// the largest so far, a heap for each query. Returns 1 if there is not enough memory, else 0.
extern "C" int update_top_k(const float* queries, int64_t count, int64_t channels, const float* keys, int64_t locations,
                            int64_t first, const float* positions, int64_t k, float* scores, int64_t* indices,
                            int64_t threads) try {
    if (count == 0 || k < 1) return 0;
    const int64_t line = (count + WIDTH - 1) / WIDTH * WIDTH;
    const int64_t in_tile = std::max<int64_t>(1, ELEMENTS_IN_TILE / line / ROWS) * ROWS;
    const int64_t tile_size = std::min(in_tile, (locations + ROWS - 1) / ROWS * ROWS) * line;
    float* const panels = workspace(line * channels + tile_size + ROWS * channels);     // (line / WIDTH, channels, WIDTH)
    float* const tile = panels + line * channels;
    float* const last_rows = tile + tile_size;
    for (int64_t query = 0; query < count; ++query)
        for (int64_t c = 0; c < channels; ++c)
            panels[query / WIDTH * WIDTH * channels + c * WIDTH + query % WIDTH] = queries[query * channels + c];

    #pragma omp parallel num_threads(threads)
    for (int64_t start = 0; start < locations; start += in_tile) {
        const int64_t end = std::min(start + in_tile, locations);

        #pragma omp for schedule(dynamic)
        for (int64_t location = start; location < end; location += ROWS) {
            const int64_t rows = std::min<int64_t>(ROWS, end - location);
            const float* left = keys + location * channels;
            if (rows < ROWS) left = std::copy_n(left, rows * channels, last_rows) - rows * channels;
            float* const affinities = tile + (location - start) * line;
            for (int64_t query = 0; query < line; query += WIDTH)
                multiply(left, channels, panels + query * channels, channels, affinities + query, line);
            for (int64_t row = 0; positions && row < rows; ++row) weight(affinities + row * line, count, positions);
        }

        #pragma omp for schedule(dynamic)
        for (int64_t query = 0; query < count; query += QUERIES) {
            const int64_t here = std::min<int64_t>(QUERIES, count - query);
            float bounds[QUERIES] = {};
            for (int64_t i = 0; i < here; ++i) bounds[i] = scores[(query + i) * k];
            for (int64_t location = start; location < end; ++location) {
                const float* const values = tile + (location - start) * line + query;
                for (int64_t i = 0; i < here; i += LANES) {
                    unsigned larger = is_larger(load(values + i), load(bounds + i));
                    if (i + LANES > here) larger &= (1u << (here - i)) - 1;        // beyond the last query
                    for (; larger; larger &= larger - 1) {
                        const int64_t lane = i + __builtin_ctz(larger), heap = (query + lane) * k;
                        // What is no number counts as infinity, so that the softmax is no number either.
                        const float value = std::isnan(values[lane]) ? INFINITY : values[lane];
                        replace_lowest(scores + heap, indices + heap, k, value, first + location);
                        bounds[lane] = scores[heap];
                    }
                }
            }
        }
    }
    return 0;
} catch (const std::bad_alloc&) {
    return 1;
}
