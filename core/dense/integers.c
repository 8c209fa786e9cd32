/* Computes tiles of products of integers: rows of inputs times panels of weights. CMakeLists.txt
 * compiles this file once for every instruction set (integers_isa.h). */
#include "core/dense/integers.h"

#include "core/dense/integers_isa.h"

#define PASTE_INTEGERS(isa) integers_##isa
#define INTEGERS_OF(isa)    PASTE_INTEGERS(isa)

enum { PANEL = 2 * LANES };

typedef uint8_t octets __attribute__((vector_size(LANES * 4)));

/* Of an input, as it is multiplied. */
INLINE size_t input_bytes(enum integer_format format)
{
    return WIDE_INPUTS && format == INTEGER_8 ? sizeof(int16_t) : sizeof(int8_t);
}

/* Some rows times one panel. */
struct tile {
    const uint8_t *weights; /* [groups] */
    const char *x;          /* [rows, groups * GROUP] inputs */
    size_t x_pitch;         /* bytes from row to row */
    const float *scales;    /* [rows, groups] */
    const int32_t *starts;
    size_t groups;
    const float *bias; /* [columns]; NULL: y holds partial sums, or sums begin with zero */
    bool resumed;
    float *y;
    size_t y_pitch, columns; /* at most PANEL count */
};

INLINE integers load(const uint8_t *from)
{
    integers value;
    memcpy(&value, from, sizeof value);
    return value;
}

INLINE floats first_value(const struct tile *tile, unsigned row, unsigned v)
{
    floats value = {0};
    size_t column = (size_t)v * LANES;
    const float *from = tile->resumed ? tile->y + row * tile->y_pitch : tile->bias;
    if (from && column + LANES <= tile->columns)
        memcpy(&value, from + column, sizeof value);
    else if (from && column < tile->columns)
        memcpy(&value, from + column, (tile->columns - column) * sizeof(float));
    return value;
}

INLINE void store(const struct tile *tile, unsigned row, unsigned v, floats value)
{
    size_t column = (size_t)v * LANES;
    float *to = tile->y + row * tile->y_pitch + column;
    if (column + LANES <= tile->columns)
        memcpy(to, &value, sizeof value);
    else if (column < tile->columns)
        memcpy(to, &value, (tile->columns - column) * sizeof(float));
}

INLINE const uint8_t *group_of(const struct tile *tile, enum integer_format format, size_t g)
{
    return tile->weights + g * integer_group_bytes(format, PANEL);
}

/* Adds a quad of both halves of the panel. */
INLINE void add_quad(const struct tile *tile, enum integer_format format, const integers weights[2],
                     const char *quad, const unsigned rows, integers sum[MAX_ROWS][2])
{
#pragma GCC unroll 8
    for (unsigned row = 0; row < rows; row++, quad += tile->x_pitch)
#pragma GCC unroll 2
        for (unsigned v = 0; v < 2; v++)
            sum[row][v] = format == INTEGER_8 ? add_8(sum[row][v], weights[v], (const void *)quad)
                          : format == INTEGER_4
                              ? add_4(sum[row][v], weights[v], (const void *)quad)
                              : add_6(sum[row][v], weights[v], (const void *)quad);
}

/* Some processors prefetch a single stream of weights poorly by themselves. */
enum { PREFETCH_BYTES = 2048, CACHE_LINE = 64 };

INLINE void prefetch(const uint8_t *from)
{
    for (size_t at = 0; at < (size_t)PANEL * QUAD; at += CACHE_LINE)
        __builtin_prefetch(from + PREFETCH_BYTES + at);
}

/* Quad q of half a panel's outputs; `weights`: of the panel's group, from that half on. */
INLINE integers unpack(const uint8_t *weights, enum integer_format format, unsigned q)
{
    const size_t pitch = (size_t)PANEL * QUAD;
    const uint8_t *three = weights + q / 4 * 3 * pitch;
    if (format == INTEGER_8)
        return load(weights + q * pitch);
    octets codes = (octets)(load(weights + q / 2 * pitch) >> q % 2 * 4) & 15;
    if (format == INTEGER_4)
        return (integers)codes;
    if (format == INTEGER_FP4)
        return fp4_numbers((integers)codes);
    if (q % 4 < 3)
        return (integers)((octets)load(three + q % 4 * pitch) & 63);
    return (integers)(((octets)(load(three) >> 2) & 48) |
                      ((octets)(load(three + pitch) >> 4) & 12) |
                      ((octets)(load(three + 2 * pitch) >> 6) & 3));
}

/* Adds group g: S of every row and output. */
INLINE void add_group(const struct tile *tile, enum integer_format format, size_t g,
                      const unsigned rows, integers sum[MAX_ROWS][2])
{
    const uint8_t *weights = group_of(tile, format, g) + PANEL * sizeof(uint16_t);
    size_t step = QUAD * input_bytes(format);
    const char *x = tile->x + g * QUADS * step;
#pragma GCC unroll 8
    for (unsigned q = 0; q < QUADS; q++, x += step) {
        integers both[2] = {unpack(weights, format, q), unpack(weights + LANES * QUAD, format, q)};
        if (PREFETCHES(format, rows) && q * integer_bits(format) % 8 == 0) /* quads share bytes */
            prefetch(weights + q * integer_bits(format) / 8 * PANEL * QUAD);
        add_quad(tile, format, both, x, rows, sum);
    }
}

INLINE integers first(enum integer_format format, int32_t start)
{
    return format == INTEGER_8   ? first_8(start)
           : format == INTEGER_4 ? first_4(start)
                                 : first_6(start);
}

INLINE integers total(enum integer_format format, integers sum, int32_t start)
{
    return format == INTEGER_4 ? total_4(sum, start) : sum;
}

/* Adds S * x_scale * w_scale of group g. */
INLINE void scale_group(const struct tile *tile, enum integer_format format, size_t g,
                        const unsigned rows, integers sum[MAX_ROWS][2], floats y[MAX_ROWS][2])
{
    integers pairs = load(group_of(tile, format, g));
    floats scales[2] = {(floats)(pairs << 16), (floats)(pairs & (int32_t)0xFFFF0000)};
#pragma GCC unroll 8
    for (unsigned row = 0; row < rows; row++) {
        size_t at = row * tile->groups + g;
#pragma GCC unroll 2
        for (unsigned v = 0; v < 2; v++) {
            integers whole = total(format, sum[row][v], tile->starts[at]);
            y[row][v] = multiply_add(__builtin_convertvector(whole, floats) * tile->scales[at],
                                     scales[v], y[row][v]);
        }
    }
}

/* Callers pass constants for format and rows: the loops unroll, and the sums live in registers. */
INLINE void compute(const struct tile *tile, enum integer_format format, const unsigned rows)
{
    floats y[MAX_ROWS][2];
    integers sum[MAX_ROWS][2];
    for (unsigned row = 0; row < rows; row++)
        for (unsigned v = 0; v < 2; v++)
            y[row][v] = first_value(tile, row, v);
    for (size_t g = 0; g < tile->groups; g++) {
#pragma GCC unroll 8
        for (unsigned row = 0; row < rows; row++)
            sum[row][0] = sum[row][1] = first(format, tile->starts[row * tile->groups + g]);
        add_group(tile, format, g, rows, sum);
        scale_group(tile, format, g, rows, sum, y);
    }
    for (unsigned row = 0; row < rows; row++)
        for (unsigned v = 0; v < 2; v++)
            store(tile, row, v, y[row][v]);
}

/* Likewise; makes a constant of the format. */
INLINE void compute_any(const struct tile *tile, enum integer_format format, const unsigned rows)
{
    switch (format) {
    case INTEGER_8:
        compute(tile, INTEGER_8, rows);
        break;
    case INTEGER_6:
        compute(tile, INTEGER_6, rows);
        break;
    case INTEGER_4:
        compute(tile, INTEGER_4, rows);
        break;
    case INTEGER_FP4:
        compute(tile, INTEGER_FP4, rows);
        break;
    }
}

static void run_tile(const struct tile *tile, enum integer_format format, size_t rows)
{
    switch (rows) {
#define CASE(r)                                                                                    \
    case r:                                                                                        \
        compute_any(tile, format, r);                                                              \
        break;
        CASE(1)
        CASE(2)
#if MAX_ROWS >= 4
        CASE(3)
        CASE(4)
#endif
#if MAX_ROWS == 8
        CASE(5)
        CASE(6)
        CASE(7)
        CASE(8)
#endif
#undef CASE
    }
}

/* Tiles are of nearly equal height: 5 rows become 3 + 2, not 4 + 1. */
static void add_panel(const struct tile *panel, enum integer_format format, size_t rows)
{
    size_t tiles = (rows + MAX_ROWS - 1) / MAX_ROWS, height = (rows + tiles - 1) / tiles;
    for (size_t row = 0; row < rows; row += height) {
        struct tile tile = *panel;
        tile.x += row * panel->x_pitch;
        tile.scales += row * panel->groups;
        tile.starts += row * panel->groups;
        tile.y += row * panel->y_pitch;
        run_tile(&tile, format, rows - row < height ? rows - row : height);
    }
}

static void add_panels(const struct integer_weights *weights, const struct integer_inputs *inputs,
                       const void *x, const float *bias, float *y)
{
    enum integer_format format = weights->format;
    size_t bytes = integer_group_bytes(format, PANEL);
    for (size_t column = weights->columns.first; column < weights->columns.end; column += PANEL) {
        size_t group = column / PANEL * weights->groups + inputs->from;
        struct tile panel = {.weights = weights->panels + group * bytes,
                             .x = x,
                             .x_pitch = inputs->groups * GROUP * input_bytes(format),
                             .scales = inputs->scales,
                             .starts = inputs->starts,
                             .groups = inputs->groups,
                             .bias = bias ? bias + column : NULL,
                             .resumed = inputs->from > 0,
                             .y = y + column,
                             .y_pitch = weights->n,
                             .columns = weights->n - column};
        add_panel(&panel, format, inputs->rows);
    }
}

static void add(const struct integer_weights *weights, const struct integer_inputs *inputs,
                const float *bias, float *y)
{
#if WIDE_INPUTS
    if (weights->format == INTEGER_8) {
        int16_t wide[BLOCK_NUMBERS];
        widen(inputs->values, inputs->rows * inputs->groups * GROUP, wide);
        add_panels(weights, inputs, wide, bias, y);
        return;
    }
#endif
    add_panels(weights, inputs, inputs->values, bias, y);
}

static bool usable(void)
{
    return USABLE;
}

const struct integer_kernel INTEGERS_OF(INTEGERS) = {.usable = usable, .panel = PANEL, .add = add};
