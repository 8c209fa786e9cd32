/* Computes one tile of a product: rows of inputs times panels of weights. CMakeLists.txt compiles
 * this file for every instruction set (isa.h) and source of weights, and defines
 *
 *   TILE    the function's name, for instance tile_avx2_f32
 *   SOURCE  what it reads, an enum source */
#include "core/dense/tile.h"

#include <string.h>

#include "core/dense/loads.h"

/* Tiles of few rows span several panels, so that no accumulator is idle. */
enum { MAX_PANELS = 4 };

INLINE vec scale(const struct tile *tile, size_t k, unsigned v)
{
    return load(tile->scales + v / 2 * tile->scales_pitch + k / SCALED_GROUP * PANEL +
                v % 2 * LANES);
}

/* Vector v of the k-th weights. */
INLINE vec operand(const struct tile *tile, enum source source, size_t k, unsigned v)
{
    size_t at = v / 2 * tile->panel_pitch + k * PANEL;
    switch (source) {
    case SOURCE_F32:
    case SOURCE_WINDOWS:
        return load((const float *)tile->source + at + v % 2 * LANES);
    case SOURCE_BF16:
        return load_bf16((const uint16_t *)tile->source + at, v % 2);
    case SOURCE_F16:
        return load_f16((const uint16_t *)tile->source + at + v % 2 * LANES);
    case SOURCE_I8:
        return load_i8((const int8_t *)tile->source + at + v % 2 * LANES) * scale(tile, k, v);
    case SOURCE_F8:
        return load_f8((const uint8_t *)tile->source + at + v % 2 * LANES) * scale(tile, k, v);
    default:
        return load((const float *)tile->source + tile->offsets[k] + v * tile->vector_pitch);
    }
}

/* Input k of a row. For SOURCE_COLUMNS these are weights, interleaved by pack_columns(). */
INLINE float input(const struct tile *tile, enum source source, const unsigned rows, unsigned row,
                   size_t k)
{
    if (source == SOURCE_COLUMNS)
        return tile->x[k * rows + row];
    const float *inputs = tile->x + (source == SOURCE_WINDOWS ? tile->offsets[k] : k);
    return inputs[row * tile->x_pitch];
}

INLINE vec first_value(const struct tile *tile, enum source source, unsigned row, unsigned v)
{
    vec value = {0};
    size_t column = (size_t)v * LANES;
    const float *from = tile->resumed ? tile->y + row * tile->y_pitch : tile->bias;
    if (!from)
        return value;
    if (source == SOURCE_COLUMNS)
        return value + from[row];
    if (column + LANES <= tile->columns)
        return load(from + column);
    if (column < tile->columns)
        memcpy(&value, from + column, (tile->columns - column) * sizeof(float));
    return value;
}

INLINE void store(const struct tile *tile, enum source source, unsigned row, unsigned v, vec value)
{
    size_t column = (size_t)v * LANES;
    float *to = tile->y + row * tile->y_pitch + column;
    if (source == SOURCE_COLUMNS || column + LANES <= tile->columns)
        memcpy(to, &value, sizeof value);
    else if (column < tile->columns)
        memcpy(to, &value, (tile->columns - column) * sizeof(float));
}

enum { CACHE_LINE = 64 };

INLINE void prefetch(const struct tile *tile, enum source source, size_t k)
{
    size_t bytes = PANEL * (source == SOURCE_I8 || source == SOURCE_F8      ? 1
                            : source == SOURCE_BF16 || source == SOURCE_F16 ? 2
                                                                            : sizeof(float));
    for (size_t line = 0; line < bytes; line += CACHE_LINE)
        __builtin_prefetch(tile->ahead + k * tile->ahead_pitch + line);
}

/* Forces the value into a register. Otherwise GCC loads a weight again for every row that it
 * multiplies, and such tiles are bound by loads: with two rows this takes half their time. */
INLINE void keep(vec *value)
{
#if defined(__x86_64__)
    __asm__("" : "+v"(*value));
#elif defined(__aarch64__)
    __asm__("" : "+w"(*value));
#else
    (void)value;
#endif
}

/* Adds one k to all sums. Inputs or weights, whichever are fewer, stay in registers; the others are
 * loaded one at a time. */
INLINE void add_tall(const struct tile *tile, enum source source, size_t k, const unsigned rows,
                     unsigned vectors, vec sum[MAX_ROWS][2 * MAX_PANELS])
{
    vec weight[2 * MAX_PANELS];
#pragma GCC unroll 8
    for (unsigned v = 0; v < vectors; v++)
        weight[v] = operand(tile, source, k, v);
#pragma GCC unroll 16
    for (unsigned row = 0; row < rows; row++) {
        float value = input(tile, source, rows, row, k);
#pragma GCC unroll 8
        for (unsigned v = 0; v < vectors; v++)
            sum[row][v] += weight[v] * value;
    }
}

INLINE void add_wide(const struct tile *tile, enum source source, size_t k, const unsigned rows,
                     unsigned vectors, vec sum[MAX_ROWS][2 * MAX_PANELS])
{
    vec value[MAX_ROWS];
#pragma GCC unroll 16
    for (unsigned row = 0; row < rows; row++)
        value[row] = (vec){0} + input(tile, source, rows, row, k);
#pragma GCC unroll 4
    for (unsigned v = 0; v < vectors; v += 2) {
        vec low = operand(tile, source, k, v), high = operand(tile, source, k, v + 1);
        keep(&low);
        keep(&high);
#pragma GCC unroll 16
        for (unsigned row = 0; row < rows; row++) {
            sum[row][v] += low * value[row];
            sum[row][v + 1] += high * value[row];
        }
    }
}

/* All callers pass constants for rows, panels and source: the loops unroll, and sum[][] lives in
 * registers. */
INLINE void compute(const struct tile *tile, enum source source, const unsigned rows,
                    const unsigned panels)
{
    vec sum[MAX_ROWS][2 * MAX_PANELS];
    unsigned vectors = 2 * panels;
#pragma GCC unroll 16
    for (unsigned row = 0; row < rows; row++)
#pragma GCC unroll 8
        for (unsigned v = 0; v < vectors; v++)
            sum[row][v] = first_value(tile, source, row, v);
    for (size_t k = 0; k < tile->k; k++) {
        if (panels == 1 && source != SOURCE_COLUMNS)
            prefetch(tile, source, k);
        if (rows < vectors)
            add_wide(tile, source, k, rows, vectors, sum);
        else
            add_tall(tile, source, k, rows, vectors, sum);
    }
#pragma GCC unroll 16
    for (unsigned row = 0; row < rows; row++)
#pragma GCC unroll 8
        for (unsigned v = 0; v < vectors; v++)
            store(tile, source, row, v, sum[row][v]);
}

/* Tiles of columns have one width. */
enum { WIDE = SOURCE != SOURCE_COLUMNS };

void TILE(const struct tile *tile, unsigned rows, bool wide)
{
    switch (rows) {
#define CASE(r)                                                                                    \
    case r:                                                                                        \
        if (WIDE && wide && panels_for(r) > 1)                                                     \
            compute(tile, SOURCE, r, panels_for(r));                                               \
        else                                                                                       \
            compute(tile, SOURCE, r, 1);                                                           \
        break;
        CASE(1)
        CASE(2)
        CASE(3)
        CASE(4)
        CASE(5)
        CASE(6)
#if MAX_ROWS == 12
        CASE(7)
        CASE(8)
        CASE(9)
        CASE(10)
        CASE(11)
        CASE(12)
#endif
#undef CASE
    }
}
