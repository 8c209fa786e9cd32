/* Rounds inputs block by block, and multiplies them with pairs of weights. For AVX-512 BF16: its
 * vdpbf16ps makes twice as many products in a cycle as a multiply-add of F32. */
#include "core/dense/bfloats.h"

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

/* A tile's MAX_ROWS x 2 sums fit the registers with two weights and an input. One of few rows spans
 * several panels: so many streams of weights are read faster than one. */
enum { LANES = 16, PANEL = 2 * LANES, PAIR = 2, MAX_ROWS = 12, MAX_PANELS = 4 };

/* Inputs of a block stay in the second-level cache, beside the panel that they are multiplied
 * with. */
enum { BLOCK_NUMBERS = 1 << 16, BLOCK_ROWS_MOST = 96 };

struct inputs {
    uint16_t values[BLOCK_NUMBERS]; /* [rows, pairs, 2] BF16 */
    size_t rows, pairs;
    size_t from; /* of the weights' pairs */
};

/* Some rows times one panel, or several whole ones. */
struct tile {
    const uint16_t *weights; /* [pairs, PANEL, 2] of the first panel */
    size_t pitch;            /* numbers from one panel to the next */
    const uint16_t *x;       /* [rows, pairs, 2] */
    size_t pairs;
    const float *start; /* [rows, columns] or a bias for all rows; NULL: sums begin with zero */
    size_t start_pitch;
    float *y;
    size_t y_pitch;
    size_t columns; /* outputs from the first panel on */
};

/* Hardware prefetches a single stream of weights poorly. */
enum { PREFETCH = 4096 / sizeof(uint16_t) };

static size_t min_size(size_t a, size_t b)
{
    return a < b ? a : b;
}

INLINE __mmask16 first_lanes(size_t count)
{
    return (__mmask16)(count >= LANES ? 0xFFFF : (1u << count) - 1);
}

/* Those of vector v that are outputs. */
INLINE __mmask16 lanes_of(const struct tile *tile, unsigned v)
{
    return first_lanes(tile->columns > v * LANES ? tile->columns - v * LANES : 0);
}

INLINE __m512 first_value(const struct tile *tile, unsigned row, unsigned v)
{
    if (!tile->start)
        return _mm512_setzero_ps();
    return _mm512_maskz_loadu_ps(lanes_of(tile, v),
                                 tile->start + row * tile->start_pitch + v * LANES);
}

INLINE __m512bh pair_of_inputs(const uint16_t *x)
{
    int32_t pair;
    memcpy(&pair, x, sizeof pair);
    return (__m512bh)_mm512_set1_epi32(pair);
}

INLINE __m512bh pair_of_weights(const uint16_t *from, const unsigned panels)
{
    if (panels == 1)
        __builtin_prefetch(from + PREFETCH);
    return (__m512bh)_mm512_loadu_si512(from);
}

/* Inputs or weights, whichever are fewer, stay in registers. */
INLINE void add_pair(const struct tile *tile, size_t pair, const unsigned rows,
                     const unsigned panels, __m512 sum[MAX_ROWS][2 * MAX_PANELS])
{
    const uint16_t *from = tile->weights + pair * PANEL * PAIR;
    const uint16_t *x = tile->x + pair * PAIR;
    __m512bh weights[2 * MAX_PANELS];
#pragma GCC unroll 8
    for (unsigned v = 0; v < 2 * panels; v++)
        weights[v] = pair_of_weights(from + v / 2 * tile->pitch + v % 2 * LANES * PAIR, panels);
#pragma GCC unroll 12
    for (unsigned row = 0; row < rows; row++) {
        __m512bh inputs = pair_of_inputs(x + row * tile->pairs * PAIR);
#pragma GCC unroll 8
        for (unsigned v = 0; v < 2 * panels; v++)
            sum[row][v] = _mm512_dpbf16_ps(sum[row][v], weights[v], inputs);
    }
}

/* Callers pass constants for rows and panels: the loops unroll, and the sums live in registers. */
INLINE void compute(const struct tile *tile, const unsigned rows, const unsigned panels)
{
    __m512 sum[MAX_ROWS][2 * MAX_PANELS];
#pragma GCC unroll 12
    for (unsigned row = 0; row < rows; row++)
#pragma GCC unroll 8
        for (unsigned v = 0; v < 2 * panels; v++)
            sum[row][v] = first_value(tile, row, v);
    for (size_t pair = 0; pair < tile->pairs; pair++)
        add_pair(tile, pair, rows, panels, sum);
#pragma GCC unroll 12
    for (unsigned row = 0; row < rows; row++)
#pragma GCC unroll 8
        for (unsigned v = 0; v < 2 * panels; v++)
            _mm512_mask_storeu_ps(tile->y + row * tile->y_pitch + v * LANES, lanes_of(tile, v),
                                  sum[row][v]);
}

static size_t panels_for(size_t rows)
{
    return rows * 4 <= MAX_ROWS ? 4 : rows * 2 <= MAX_ROWS ? 2 : 1;
}

/* `wide`: of panels_for(rows) panels. */
static void run_tile(const struct tile *tile, size_t rows, bool wide)
{
    switch (wide ? MAX_ROWS + rows : rows) {
#define CASE(r)                                                                                    \
    case r:                                                                                        \
        compute(tile, r, 1);                                                                       \
        break;
#define WIDE(r, panels)                                                                            \
    case MAX_ROWS + r:                                                                             \
        compute(tile, r, panels);                                                                  \
        break;
        CASE(1)
        CASE(2)
        CASE(3)
        CASE(4)
        CASE(5)
        CASE(6)
        CASE(7)
        CASE(8)
        CASE(9)
        CASE(10)
        CASE(11)
        CASE(12)
        WIDE(1, 4)
        WIDE(2, 4)
        WIDE(3, 4)
        WIDE(4, 2)
        WIDE(5, 2)
        WIDE(6, 2)
#undef CASE
#undef WIDE
    }
}

/* Tiles are of nearly equal height: 13 rows become 7 + 6, not 12 + 1. */
static void add_panel(const struct tile *panel, size_t rows, bool wide)
{
    size_t tiles = (rows + MAX_ROWS - 1) / MAX_ROWS, height = (rows + tiles - 1) / tiles;
    struct tile tile = *panel;
    for (size_t row = 0; row < rows; row += height) {
        run_tile(&tile, min_size(height, rows - row), wide);
        tile.x += height * tile.pairs * PAIR;
        tile.y += height * tile.y_pitch;
        if (tile.start)
            tile.start += height * tile.start_pitch;
    }
}

/* Adds a block to y, or begins with it, and with the bias, if it is the first. */
static void add_block(const struct packed *weights, const struct inputs *inputs, const float *bias,
                      float *y)
{
    size_t n = weights->n, pairs = (weights->k + 1) / PAIR;
    bool resumed = inputs->from > 0;
    const float *start = resumed ? y : bias;
    size_t span = panels_for(inputs->rows) * PANEL;
    for (size_t column = weights->columns.first, step; column < weights->columns.end;
         column += step) {
        struct tile tile = {.weights = (const uint16_t *)weights->panels +
                                       (column * pairs + inputs->from * PANEL) * PAIR,
                            .pitch = pairs * PANEL * PAIR,
                            .x = inputs->values,
                            .pairs = inputs->pairs,
                            .start = start ? start + column : NULL,
                            .start_pitch = resumed ? n : 0,
                            .y = y + column,
                            .y_pitch = n,
                            .columns = n - column};
        bool wide = span > PANEL && weights->columns.end - column >= span;
        step = wide ? span : PANEL;
        add_panel(&tile, inputs->rows, wide);
    }
}

/* To the nearest BF16, ties to even. `to` has whole pairs. */
static void round_inputs(const float *x, size_t count, uint16_t *to)
{
    size_t whole = (count + 1) / PAIR * PAIR;
    for (size_t i = 0; i < whole; i += LANES) {
        __mmask16 from = first_lanes(count - i), into = first_lanes(whole - i);
        __m256i rounded = (__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(from, x + i));
        _mm256_mask_storeu_epi16(to + i, into, rounded);
    }
}

static void multiply(const struct packed *weights, const float *x, size_t rows, const float *bias,
                     float *y)
{
    size_t k = weights->k, pairs = (k + 1) / PAIR;
    size_t blocks = (rows + BLOCK_ROWS_MOST - 1) / BLOCK_ROWS_MOST;
    struct inputs inputs;
    for (size_t block = 0, row = 0; block < blocks; block++, row += inputs.rows) {
        inputs.rows = rows * (block + 1) / blocks - row;
        size_t depth = BLOCK_NUMBERS / PAIR / inputs.rows;
        for (inputs.from = 0; inputs.from < pairs; inputs.from += depth) {
            size_t first = inputs.from * PAIR;
            inputs.pairs = min_size(depth, pairs - inputs.from);
            for (size_t i = 0; i < inputs.rows; i++)
                round_inputs(x + (row + i) * k + first, min_size(inputs.pairs * PAIR, k - first),
                             inputs.values + i * inputs.pairs * PAIR);
            add_block(weights, &inputs, bias, y + row * weights->n);
        }
    }
}

static bool usable(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bf16");
}

const struct bfloat_kernel bfloats_avx512 = {.usable = usable, .panel = PANEL, .rows = multiply};
