/* The kernel, written once for every vector width. The including file defines
 *
 *   KERNEL      the struct kernel to define
 *   KERNEL_NAME its name
 *   LANES       floats per vector
 *   MAX_ROWS    rows of a tile: MAX_ROWS x 2 accumulators, 2 weights and 1 input fit the registers
 *   USABLE      an expression: may this machine run it?
 *   LOAD_F16(p) (optional) LANES 16-bit floats at p as a vector of floats
 *   LOAD_I8(p)  (optional) LANES 8-bit integers at p as a vector of floats
 *
 * and is compiled for the instruction set it names. GCC's vector extensions, not intrinsics: the
 * loops below are the whole kernel for SSE2, AVX2, AVX-512 and NEON alike; only widening F16 and I8
 * has to name the instruction. */
#include <stdint.h>
#include <string.h>

#include "core/dense/kernel.h"

typedef float vec __attribute__((vector_size(LANES * 4)));
typedef uint32_t bits __attribute__((vector_size(LANES * 4)));

/* Two vectors wide: one row of a tile then needs two weights and one input for two multiply-adds,
 * and six rows (twelve with AVX-512) hide the latency of the adders. */
enum { PANEL = 2 * LANES };

/* What a tile multiplies: packed weights of a dtype; packed F32 weights with inputs found through
 * offsets; or columns found through offsets. */
enum source { SOURCE_F32, SOURCE_BF16, SOURCE_F16, SOURCE_I8, SOURCE_WINDOWS, SOURCE_COLUMNS };

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

INLINE vec load_i8(const int8_t *from)
{
#ifdef LOAD_I8
    return LOAD_I8(from);
#else
    vec value;
    for (size_t lane = 0; lane < LANES; lane++)
        value[lane] = from[lane];
    return value;
#endif
}

/* A tile's place: rows of x times `panels` panels, over `k` of their inputs. */
struct tile {
    const void *source;    /* first panel, or X's first column */
    size_t panel_pitch;    /* numbers from one panel to the next */
    size_t vector_pitch;   /* SOURCE_COLUMNS: from the first vector to the second */
    const size_t *offsets; /* SOURCE_WINDOWS, SOURCE_COLUMNS */
    const char *ahead;     /* what to fetch meanwhile, `ahead_pitch` bytes for every k */
    size_t ahead_pitch;
    const float *x;
    size_t x_pitch, k;
    bool resumed;      /* y holds the sums so far; else they begin with the bias */
    const float *bias; /* one per column, or, SOURCE_COLUMNS, per row; may be NULL */
    float *y;
    size_t y_pitch;
    size_t columns; /* valid ones; the last panel may have fewer than PANEL */
};

/* Vector v of the k-th weights. */
INLINE vec operand(const struct tile *tile, enum source source, size_t k, unsigned v)
{
    const size_t at = v / 2 * tile->panel_pitch + k * PANEL;
    switch (source) {
    case SOURCE_F32:
    case SOURCE_WINDOWS:
        return load((const float *)tile->source + at + v % 2 * LANES);
    case SOURCE_BF16:
        return load_bf16((const uint16_t *)tile->source + at, v % 2);
    case SOURCE_F16:
        return load_f16((const uint16_t *)tile->source + at + v % 2 * LANES);
    case SOURCE_I8:
        return load_i8((const int8_t *)tile->source + at + v % 2 * LANES);
    default:
        return load((const float *)tile->source + tile->offsets[k] + v * tile->vector_pitch);
    }
}

/* Input k of a row; for SOURCE_COLUMNS these are weights, which pack_columns() has put side by
 * side. */
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
    const size_t column = (size_t)v * LANES;
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
    const size_t column = (size_t)v * LANES;
    float *to = tile->y + row * tile->y_pitch + column;
    if (source == SOURCE_COLUMNS || column + LANES <= tile->columns)
        memcpy(to, &value, sizeof value);
    else if (column < tile->columns)
        memcpy(to, &value, (tile->columns - column) * sizeof(float));
}

enum { CACHE_LINE = 64 };

INLINE void prefetch(const struct tile *tile, enum source source, size_t k)
{
    const size_t bytes = PANEL * (source == SOURCE_I8                             ? 1
                                  : source == SOURCE_BF16 || source == SOURCE_F16 ? 2
                                                                                  : sizeof(float));
    for (size_t line = 0; line < bytes; line += CACHE_LINE)
        __builtin_prefetch(tile->ahead + k * tile->ahead_pitch + line);
}

/* In a register from here on. Left to itself GCC reads a weight again for every row that multiplies
 * it, and loads are what such tiles wait for: with two rows this is half their time. */
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

/* One k into all sums. Whichever of inputs and weights are fewer stay in registers; of the others
 * there is one at a time. */
INLINE void add_tall(const struct tile *tile, enum source source, size_t k, const unsigned rows,
                     const unsigned vectors, vec sum[MAX_ROWS][2 * MAX_PANELS])
{
    vec weight[2 * MAX_PANELS];
#pragma GCC unroll 8
    for (unsigned v = 0; v < vectors; v++)
        weight[v] = operand(tile, source, k, v);
#pragma GCC unroll 16
    for (unsigned row = 0; row < rows; row++) {
        const float value = input(tile, source, rows, row, k);
#pragma GCC unroll 8
        for (unsigned v = 0; v < vectors; v++)
            sum[row][v] += weight[v] * value;
    }
}

INLINE void add_wide(const struct tile *tile, enum source source, size_t k, const unsigned rows,
                     const unsigned vectors, vec sum[MAX_ROWS][2 * MAX_PANELS])
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

/* Panels that a tile of so many rows spans: as many as there are accumulators for. */
INLINE unsigned panels_for(unsigned rows)
{
    return rows * 4 <= MAX_ROWS ? 4 : rows * 2 <= MAX_ROWS ? 2 : 1;
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
DEFINE_TILE(tile_i8, SOURCE_I8)
DEFINE_TILE(tile_windows, SOURCE_WINDOWS)
DEFINE_TILE(tile_columns, SOURCE_COLUMNS)

static size_t min_size(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Rows are cut into tiles of almost equal height: 8 rows are 4 + 4, not 6 + 2. */
static unsigned tile_rows(size_t rows)
{
    const size_t tiles = (rows + MAX_ROWS - 1) / MAX_ROWS;
    return (unsigned)((rows + tiles - 1) / tiles);
}

/* A product and how it is cut: into tiles of `height` rows, and weights into blocks of `span`
 * panels and `depth` inputs that stay in the second-level cache while all rows pass by. Sums wait
 * in y between blocks, which changes no bit of them. */
struct product {
    const struct packed *weights;
    const float *x;
    size_t x_pitch;
    const size_t *offsets; /* of a row's inputs; NULL: they are side by side */
    const float *bias;
    float *y;
    size_t rows, height, tiles, span, depth;
};

enum { MAX_DEPTH = 1536 };

/* Rows of a large batch that are multiplied with all weights before the next: that many inputs stay
 * in the second-level cache too. */
enum { BLOCK_ROWS = 96 };

/* Processors follow several streams of weights by themselves, but one alone only haltingly. It is
 * asked for ahead of time: by the only tile so many bytes; by several tiles, each its share of the
 * next block, so that memory works as long as they do. */
enum { PREFETCH_BYTES = 2048 };

typedef void compute_tile(const struct tile *tile, unsigned rows, bool wide);

static compute_tile *tile_of(const struct product *product)
{
    static compute_tile *const of_dtype[] = {[DTYPE_F32] = tile_f32,
                                             [DTYPE_F16] = tile_f16,
                                             [DTYPE_BF16] = tile_bf16,
                                             [DTYPE_I8] = tile_i8};
    return product->offsets ? tile_windows : of_dtype[product->weights->dtype];
}

static void multiply_block(const struct product *product, size_t panel, size_t from, bool wide)
{
    const struct packed *weights = product->weights;
    compute_tile *const run_tile = tile_of(product);
    const size_t n = weights->n, k = weights->k, bytes = PANEL * dtype_bytes(weights->dtype);
    const size_t column = panel * PANEL, depth = min_size(product->depth, k - from);
    const char *source = (const char *)weights->panels + (panel * k + from) * bytes;
    const size_t share = depth * bytes / product->tiles;
    const char *ahead = source + (product->tiles == 1 ? PREFETCH_BYTES : depth * bytes);
    const float *x = product->x + (product->offsets ? 0 : from);
    for (size_t row = 0; row < product->rows; row += product->height, ahead += share) {
        const struct tile tile = {.source = source,
                                  .panel_pitch = k * PANEL,
                                  .ahead = ahead,
                                  .ahead_pitch = bytes / product->tiles,
                                  .x = x + row * product->x_pitch,
                                  .x_pitch = product->x_pitch,
                                  .offsets = product->offsets ? product->offsets + from : NULL,
                                  .k = depth,
                                  .resumed = from > 0,
                                  .bias = product->bias ? product->bias + column : NULL,
                                  .y = product->y + row * n + column,
                                  .y_pitch = n,
                                  .columns = n - column};
        run_tile(&tile, (unsigned)min_size(product->height, product->rows - row), wide);
    }
}

static void windows_all(const struct packed *weights, const float *x, size_t x_pitch,
                        const size_t *offsets, size_t rows, const float *bias, float *y)
{
    const size_t k = weights->k, panels = (weights->n + PANEL - 1) / PANEL;
    const size_t height = tile_rows(rows), tiles = (rows + height - 1) / height;
    const size_t blocks = tiles == 1 ? 1 : (k + MAX_DEPTH - 1) / MAX_DEPTH;
    const struct product product = {.weights = weights,
                                    .x = x,
                                    .x_pitch = x_pitch,
                                    .offsets = offsets,
                                    .bias = bias,
                                    .y = y,
                                    .rows = rows,
                                    .height = height,
                                    .tiles = tiles,
                                    .span = tiles == 1 ? panels_for((unsigned)rows) : 1,
                                    .depth = (k + blocks - 1) / blocks};
    for (size_t panel = 0, step; panel < panels; panel += step) {
        const bool wide = product.span > 1 && panels - panel >= product.span;
        step = wide ? product.span : 1;
        for (size_t from = 0; from < k; from += product.depth)
            multiply_block(&product, panel, from, wide);
    }
}

static void rows_all(const struct packed *weights, const float *x, size_t rows, const float *bias,
                     float *y)
{
    const size_t n = weights->n, k = weights->k;
    for (size_t row = 0; row < rows; row += BLOCK_ROWS)
        windows_all(weights, x + row * k, k, NULL, min_size(rows - row, BLOCK_ROWS), bias,
                    y + row * n);
}

/* Every tile's rows of weights one k after the other: one pointer then walks them, where a pointer
 * for each row would not find a register. */
static void pack_columns(const float *weights, size_t count, size_t k, float *packed)
{
    const size_t height = tile_rows(count);
    for (size_t first = 0; first < count; first += height) {
        const size_t rows = min_size(height, count - first);
        for (size_t i = 0; i < k; i++)
            for (size_t row = first; row < first + rows; row++)
                *packed++ = weights[row * k + i];
    }
}

static void multiply_columns(struct tile *tile, const float *packed, size_t count,
                             const float *bias, float *y)
{
    const size_t height = tile_rows(count);
    for (size_t row = 0; row < count; row += height) {
        tile->x = packed + row * tile->k;
        tile->bias = bias ? bias + row : NULL;
        tile->y = y + row * tile->y_pitch;
        tile_columns(tile, (unsigned)min_size(height, count - row), false);
    }
}

/* `left`: columns of the line from this vector on. */
static const float *next_vector(const float *vector, const struct columns *columns, size_t *left)
{
    *left -= LANES;
    vector += LANES;
    if (*left > 0)
        return vector;
    *left = columns->line;
    return vector + columns->pitch - columns->line;
}

static void columns_all(const float *packed, size_t count, size_t k, const float *x,
                        const struct columns *columns, const float *bias, float *y, size_t y_pitch)
{
    struct tile tile = {.offsets = columns->offsets, .k = k, .y_pitch = y_pitch};
    const float *vector = x; /* the next one's first column */
    size_t left = columns->line;
    for (size_t column = 0; column < columns->count; column += PANEL) {
        const float *const first = vector;
        vector = next_vector(vector, columns, &left);
        tile.source = first;
        tile.vector_pitch = (size_t)(vector - first);
        vector = next_vector(vector, columns, &left);
        multiply_columns(&tile, packed, count, bias, y + column);
    }
}

static bool usable(void)
{
    return USABLE;
}

const struct kernel KERNEL = {.name = KERNEL_NAME,
                              .usable = usable,
                              .lanes = LANES,
                              .panel = PANEL,
                              .reads_bf16 = true,
                              .reads_i8 = true,
#ifdef LOAD_F16
                              .reads_f16 = true,
#endif
                              .rows = rows_all,
                              .windows = windows_all,
                              .pack_columns = pack_columns,
                              .columns = columns_all};
