/* The kernel, written once for every vector width. The including file defines
 *
 *   KERNEL      the struct kernel to define
 *   KERNEL_NAME its name
 *   LANES       floats per vector
 *   MAX_ROWS    rows of a tile: MAX_ROWS x 2 accumulators, 2 weights and 1 input fit the registers
 *   USABLE      an expression: may this machine run it?
 *   LOAD_F16(p) (optional) LANES 16-bit floats at p as a vector of floats
 *
 * and is compiled for the instruction set it names. GCC's vector extensions, not intrinsics: the
 * loops below are the whole kernel for SSE2, AVX2, AVX-512 and NEON alike; only widening F16 has to
 * name the instruction. */
#include <stdint.h>
#include <string.h>

#include "kernel.h"

typedef float vec __attribute__((vector_size(LANES * 4)));
typedef uint32_t bits __attribute__((vector_size(LANES * 4)));

/* Two vectors wide: one row of a tile then needs two weights and one input for two multiply-adds,
 * and six rows (twelve with AVX-512) hide the latency of the adders. */
enum { PANEL = 2 * LANES };

/* What a tile multiplies: packed weights of a dtype, or columns found through offsets. */
enum source { SOURCE_F32, SOURCE_BF16, SOURCE_F16, SOURCE_COLUMNS };

/* Fewer rows than that leave accumulators idle: such tiles span several panels instead. */
enum { MAX_PANELS = 4 };

#define INLINE static inline __attribute__((always_inline))

INLINE vec load(const float *from)
{
    vec value;
    memcpy(&value, from, sizeof value);
    return value;
}

/* Half `v` of a panel's pairs: a float's upper half is the same number as BF16. */
INLINE vec load_bf16(const uint16_t *from, unsigned v)
{
    bits pairs;
    memcpy(&pairs, from, sizeof pairs);
    return (vec)(v == 0 ? pairs << 16 : pairs & 0xffff0000);
}

INLINE vec load_f16(const uint16_t *from)
{
#ifdef LOAD_F16
    return LOAD_F16(from);
#else
    (void)from;
    return (vec){0};
#endif
}

/* A tile's place: x[rows, k] times `panels` panels. */
struct tile {
    const void *source;    /* first panel, or X's first column */
    const size_t *offsets; /* SOURCE_COLUMNS */
    const float *x;        /* [rows, k] */
    size_t k;
    const float *bias; /* one per column, or, SOURCE_COLUMNS, per row; may be NULL */
    float *y;
    size_t y_pitch;
    size_t columns; /* valid ones; the last panel may have fewer than PANEL */
};

/* Vector v of the k-th weights. */
INLINE vec operand(const struct tile *tile, enum source source, size_t k, unsigned v)
{
    const size_t at = (v / 2 * tile->k + k) * PANEL;
    switch (source) {
    case SOURCE_F32:
        return load((const float *)tile->source + at + v % 2 * LANES);
    case SOURCE_BF16:
        return load_bf16((const uint16_t *)tile->source + at, v % 2);
    case SOURCE_F16:
        return load_f16((const uint16_t *)tile->source + at + v % 2 * LANES);
    default:
        return load((const float *)tile->source + tile->offsets[k] + v * LANES);
    }
}

INLINE vec first_value(const struct tile *tile, enum source source, unsigned row, unsigned v)
{
    vec value = {0};
    if (!tile->bias)
        return value;
    if (source == SOURCE_COLUMNS)
        return value + tile->bias[row];
    const size_t column = (size_t)v * LANES;
    const size_t left = tile->columns > column ? tile->columns - column : 0;
    memcpy(&value, tile->bias + column, (left < LANES ? left : LANES) * sizeof(float));
    return value;
}

INLINE void store(const struct tile *tile, enum source source, unsigned row, unsigned v, vec value)
{
    const size_t column = (size_t)v * LANES;
    float *to = tile->y + row * tile->y_pitch + column;
    if (source == SOURCE_COLUMNS || column + LANES <= tile->columns)
        memcpy(to, &value, sizeof value);
    else if (column < tile->columns)
        memcpy(to, &value, (tile->columns - column) * sizeof(float));
}

/* rows, panels and source are constants where this is called: the loops unroll, sum[][] lives in
 * registers. */
INLINE void compute(const struct tile *tile, enum source source, const unsigned rows,
                    const unsigned panels)
{
    vec sum[MAX_ROWS][2 * MAX_PANELS];
    const unsigned vectors = 2 * panels;
#pragma GCC unroll 16
    for (unsigned row = 0; row < rows; row++)
#pragma GCC unroll 8
        for (unsigned v = 0; v < vectors; v++)
            sum[row][v] = first_value(tile, source, row, v);
    for (size_t k = 0; k < tile->k; k++) {
        vec weight[2 * MAX_PANELS];
#pragma GCC unroll 8
        for (unsigned v = 0; v < vectors; v++)
            weight[v] = operand(tile, source, k, v);
#pragma GCC unroll 16
        for (unsigned row = 0; row < rows; row++) {
            const float value = tile->x[row * tile->k + k];
#pragma GCC unroll 8
            for (unsigned v = 0; v < vectors; v++)
                sum[row][v] += weight[v] * value;
        }
    }
#pragma GCC unroll 16
    for (unsigned row = 0; row < rows; row++)
#pragma GCC unroll 8
        for (unsigned v = 0; v < vectors; v++)
            store(tile, source, row, v, sum[row][v]);
}

/* Panels that a tile of so many rows spans. */
INLINE unsigned panels_for(unsigned rows)
{
    return rows == 1 ? 4 : rows <= 3 ? 2 : 1;
}

INLINE void compute_rows(const struct tile *tile, enum source source, unsigned rows, bool wide)
{
    switch (rows) {
#define CASE(r)                                                                                    \
    case r:                                                                                        \
        if (wide && panels_for(r) > 1)                                                             \
            compute(tile, source, r, panels_for(r));                                               \
        else                                                                                       \
            compute(tile, source, r, 1);                                                           \
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

/* Not inlined: one copy of the tiles per source. */
#define DEFINE_TILE(name, source)                                                                  \
    static __attribute__((noinline)) void name(const struct tile *tile, unsigned rows, bool wide)  \
    {                                                                                              \
        compute_rows(tile, source, rows, wide);                                                    \
    }

DEFINE_TILE(tile_f32, SOURCE_F32)
DEFINE_TILE(tile_bf16, SOURCE_BF16)
DEFINE_TILE(tile_f16, SOURCE_F16)
DEFINE_TILE(tile_columns, SOURCE_COLUMNS)

/* Rows are cut into tiles of almost equal height: 8 rows are 4 + 4, not 6 + 2. */
static unsigned tile_rows(size_t rows)
{
    const size_t tiles = (rows + MAX_ROWS - 1) / MAX_ROWS;
    return (unsigned)((rows + tiles - 1) / tiles);
}

/* All panels over one group of rows whose inputs stay in the second-level cache. */
static void rows_group(const struct packed *weights, const float *x, size_t rows, const float *bias,
                       float *y)
{
    void (*const compute_tile)(const struct tile *, unsigned, bool) =
        weights->dtype == DTYPE_F32    ? tile_f32
        : weights->dtype == DTYPE_BF16 ? tile_bf16
                                       : tile_f16;
    const size_t n = weights->n, k = weights->k, height = tile_rows(rows);
    const size_t panel_bytes = k * PANEL * dtype_bytes(weights->dtype);
    const size_t panels = (n + PANEL - 1) / PANEL;
    const unsigned span = panels_for((unsigned)height);
    for (size_t panel = 0, step; panel < panels; panel += step) {
        const bool wide = panels - panel >= span;
        step = wide ? span : 1;
        for (size_t row = 0; row < rows; row += height) {
            const size_t column = panel * PANEL, left = rows - row;
            const unsigned count = (unsigned)(left < height ? left : height);
            /* The last tile may be lower than the others, and then span more panels. */
            const bool same = panels_for(count) == span;
            struct tile tile = {.source = (const char *)weights->panels + panel * panel_bytes,
                                .x = x + row * k,
                                .k = k,
                                .bias = bias ? bias + column : NULL,
                                .y = y + row * n + column,
                                .y_pitch = n,
                                .columns = n - column};
            for (size_t done = 0; done < step; done += wide && same ? span : 1) {
                compute_tile(&tile, count, wide && same);
                tile.source = (const char *)tile.source + panel_bytes;
                tile.bias = tile.bias ? tile.bias + PANEL : NULL;
                tile.y += PANEL;
                tile.columns -= tile.columns < PANEL ? tile.columns : PANEL;
            }
        }
    }
}

/* Inputs of one group of rows: half of a small second-level cache. */
enum { GROUP_BYTES = 256 << 10 };

static void rows_all(const struct packed *weights, const float *x, size_t rows, const float *bias,
                     float *y)
{
    size_t group = GROUP_BYTES / (weights->k * sizeof(float));
    group = group < MAX_ROWS ? MAX_ROWS : group / MAX_ROWS * MAX_ROWS;
    for (size_t row = 0; row < rows; row += group) {
        const size_t left = rows - row;
        rows_group(weights, x + row * weights->k, left < group ? left : group, bias,
                   y + row * weights->n);
    }
}

static void columns_all(const float *weights, size_t count, size_t k, const float *x,
                        const size_t *offsets, size_t columns, const float *bias, float *y,
                        size_t y_pitch)
{
    const size_t height = tile_rows(count);
    for (size_t column = 0; column < columns; column += PANEL)
        for (size_t row = 0; row < count; row += height) {
            const size_t left = count - row;
            const struct tile tile = {.source = x + column,
                                      .offsets = offsets,
                                      .x = weights + row * k,
                                      .k = k,
                                      .bias = bias ? bias + row : NULL,
                                      .y = y + row * y_pitch + column,
                                      .y_pitch = y_pitch};
            tile_columns(&tile, (unsigned)(left < height ? left : height), false);
        }
}

static bool usable(void)
{
    return USABLE;
}

const struct kernel KERNEL = {.name = KERNEL_NAME,
                              .usable = usable,
                              .panel = PANEL,
                              .reads_bf16 = true,
#ifdef LOAD_F16
                              .reads_f16 = true,
#endif
                              .rows = rows_all,
                              .columns = columns_all};
