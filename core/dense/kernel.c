/* A kernel cuts products into tiles that fit registers and caches. CMakeLists.txt compiles this
 * file once for every instruction set (isa.h). */
#include "core/dense/kernel.h"

#include <string.h>

#include "core/dense/loads.h"
#include "core/dense/tile.h"

/* For avx2: kernel_avx2. */
#define PASTE_KERNEL(isa) kernel_##isa
#define KERNEL_OF(isa)    PASTE_KERNEL(isa)

static size_t min_size(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Rows are cut into tiles of nearly equal height: 8 rows become 4 + 4, not 6 + 2. */
static unsigned tile_rows(size_t rows)
{
    size_t tiles = (rows + MAX_ROWS - 1) / MAX_ROWS;
    return (unsigned)((rows + tiles - 1) / tiles);
}

/* A product and how it is cut: rows into tiles of `height` rows, weights into blocks of `span`
 * panels and `depth` inputs that stay in the second-level cache while all rows are multiplied.
 * Between blocks partial sums are stored in y, which does not change their bits. */
struct product {
    const struct packed *weights;
    const float *x;
    size_t x_pitch;
    const size_t *offsets; /* of a row's inputs; NULL: they are contiguous */
    const float *bias;
    float *y;
    size_t rows, height, tiles, span, depth;
};

enum { MAX_DEPTH = 1536 };

/* This many rows of a large batch are multiplied with all weights before the next ones: their
 * inputs stay in the second-level cache too. */
enum { BLOCK_ROWS = 96 };

/* Hardware prefetches several streams of weights well, but a single one poorly, so tiles prefetch
 * in software: a single tile this many bytes ahead; several tiles each a share of the next block,
 * so that memory is busy as long as they are. */
enum { PREFETCH_BYTES = 2048 };

static compute_tile *tile_of(const struct product *product)
{
    static compute_tile *const of_dtype[] = {
        [DTYPE_F32] = TILE_OF(ISA, f32), [DTYPE_BF16] = TILE_OF(ISA, bf16),
        [DTYPE_I8] = TILE_OF(ISA, i8),
#ifdef LOAD_F16
        [DTYPE_F16] = TILE_OF(ISA, f16), [DTYPE_F8_E4M3] = TILE_OF(ISA, f8),
#endif
    };
    return product->offsets ? TILE_OF(ISA, windows) : of_dtype[product->weights->dtype];
}

/* Tile after tile of rows. `tile` has all but what differs between them. */
static void run_tiles(const struct product *product, compute_tile *run_tile, struct tile tile,
                      bool wide)
{
    const float *const x = tile.x;
    float *const y = tile.y;
    const size_t share = tile.k * PANEL * dtype_bytes(product->weights->dtype) / product->tiles;
    for (size_t row = 0; row < product->rows; row += product->height, tile.ahead += share) {
        tile.x = x + row * product->x_pitch;
        tile.y = y + row * tile.y_pitch;
        run_tile(&tile, (unsigned)min_size(product->height, product->rows - row), wide);
    }
}

/* Widening 8 bits takes several instructions, so where a block's weights meet many tiles of rows
 * they are widened once for all. */
enum { WIDENED_FROM = 3, WIDENED_NUMBERS = (MAX_DEPTH + SCALED_GROUP) * PANEL };

static void run_widened(const struct product *product, struct tile tile)
{
    float widened[WIDENED_NUMBERS];
    const bool integers = product->weights->dtype == DTYPE_I8;
    for (size_t i = 0; i < tile.k * PANEL; i += LANES) {
        const void *const at = (const char *)tile.source + i;
        vec value = (integers ? load_i8(at) : load_f8(at)) *
                    load(tile.scales + i / PANEL / SCALED_GROUP * PANEL + i % PANEL);
        memcpy(widened + i, &value, sizeof value);
    }
    tile.source = widened;
    run_tiles(product, TILE_OF(ISA, f32), tile, false);
}

static void multiply_block(const struct product *product, size_t panel, size_t from, bool wide)
{
    const struct packed *weights = product->weights;
    size_t n = weights->n, k = weights->k, bytes = PANEL * dtype_bytes(weights->dtype);
    size_t column = panel * PANEL, depth = min_size(product->depth, k - from);
    size_t groups = (k + SCALED_GROUP - 1) / SCALED_GROUP;
    const char *source = (const char *)weights->panels + (panel * k + from) * bytes;
    const float *scales = weights->scales;
    struct tile tile = {.source = source,
                        .panel_pitch = k * PANEL,
                        .scales =
                            scales ? scales + (panel * groups + from / SCALED_GROUP) * PANEL : NULL,
                        .scales_pitch = groups * PANEL,
                        .ahead = source + (product->tiles == 1 ? PREFETCH_BYTES : depth * bytes),
                        .ahead_pitch = bytes / product->tiles,
                        .x = product->x + (product->offsets ? 0 : from),
                        .x_pitch = product->x_pitch,
                        .offsets = product->offsets ? product->offsets + from : NULL,
                        .k = depth,
                        .resumed = from > 0,
                        .bias = product->bias ? product->bias + column : NULL,
                        .y = product->y + column,
                        .y_pitch = n,
                        .columns = n - column};
    if (scales && product->tiles >= WIDENED_FROM)
        run_widened(product, tile);
    else
        run_tiles(product, tile_of(product), tile, wide);
}

/* Blocks begin where a scale does. */
static size_t whole_groups(size_t depth)
{
    return (depth + SCALED_GROUP - 1) / SCALED_GROUP * SCALED_GROUP;
}

static void windows_all(const struct packed *weights, const struct windows *windows,
                        const float *bias, float *y)
{
    size_t rows = windows->count;
    size_t k = weights->k, panels = (weights->columns.end + PANEL - 1) / PANEL;
    size_t height = tile_rows(rows), tiles = (rows + height - 1) / height;
    size_t blocks = tiles == 1 ? 1 : (k + MAX_DEPTH - 1) / MAX_DEPTH;
    struct product product = {.weights = weights,
                              .x = windows->x,
                              .x_pitch = windows->pitch,
                              .offsets = windows->offsets,
                              .bias = bias,
                              .y = y,
                              .rows = rows,
                              .height = height,
                              .tiles = tiles,
                              .span = tiles == 1 ? panels_for((unsigned)rows) : 1,
                              .depth = whole_groups((k + blocks - 1) / blocks)};
    for (size_t panel = weights->columns.first / PANEL, step; panel < panels; panel += step) {
        bool wide = product.span > 1 && panels - panel >= product.span;
        step = wide ? product.span : 1;
        for (size_t from = 0; from < k; from += product.depth)
            multiply_block(&product, panel, from, wide);
    }
}

static void rows_all(const struct packed *weights, const float *x, size_t rows, const float *bias,
                     float *y)
{
    size_t n = weights->n, k = weights->k;
    for (size_t row = 0; row < rows; row += BLOCK_ROWS) {
        struct windows block = {x + row * k, k, NULL, min_size(rows - row, BLOCK_ROWS)};
        windows_all(weights, &block, bias, y + row * n);
    }
}

/* Interleaves the rows of weights of each tile by k: one pointer then walks them, where one pointer
 * per row would not fit the registers. */
static void pack_columns(const float *weights, size_t count, size_t k, float *packed)
{
    size_t height = tile_rows(count);
    for (size_t first = 0; first < count; first += height) {
        size_t rows = min_size(height, count - first);
        for (size_t i = 0; i < k; i++)
            for (size_t row = first; row < first + rows; row++)
                *packed++ = weights[row * k + i];
    }
}

static void multiply_columns(struct tile *tile, const struct filters *filters, float *y)
{
    size_t height = tile_rows(filters->count);
    for (size_t row = 0; row < filters->count; row += height) {
        tile->x = filters->packed + row * tile->k;
        tile->bias = filters->bias ? filters->bias + row : NULL;
        tile->y = y + row * tile->y_pitch;
        TILE_OF(ISA, columns)(tile, (unsigned)min_size(height, filters->count - row), false);
    }
}

/* `left`: how many columns of the line remain, from this vector on. */
static const float *next_vector(const float *vector, const struct columns *columns, size_t *left)
{
    *left -= LANES;
    vector += LANES;
    if (*left > 0)
        return vector;
    *left = columns->line;
    return vector + columns->pitch - columns->line;
}

/* At least a vector. */
static void copy_numbers(float *to, const float *from, size_t count)
{
    size_t i = 0;
    for (; i + LANES <= count; i += LANES)
        memcpy(to + i, from + i, LANES * sizeof *to);
    if (i < count)
        memcpy(to + count - LANES, from + count - LANES, LANES * sizeof *to);
}

/* Copies the windows of two vectors into the panel, and makes the tile read them there. */
static void fill_panel(struct tile *tile, const struct columns *columns)
{
    const size_t part = LANES + columns->span - 1;
    const float *first = tile->source, *second = first + tile->vector_pitch;
    float *to = columns->panel;
    for (size_t k = 0; k < tile->k; k += columns->span, to += 2 * part) {
        copy_numbers(to, first + columns->offsets[k], part);
        copy_numbers(to + part, second + columns->offsets[k], part);
    }
    tile->source = columns->panel;
    tile->vector_pitch = part;
}

static void columns_all(const struct filters *filters, const struct columns *columns,
                        const float *x, float *y, size_t y_pitch)
{
    struct tile tile = {.offsets = columns->panel ? columns->panel_offsets : columns->offsets,
                        .k = filters->k,
                        .y_pitch = y_pitch};
    const float *vector = x; /* the next one's first column */
    size_t left = columns->line;
    for (size_t column = 0; column < columns->count; column += PANEL) {
        const float *const first = vector;
        vector = next_vector(vector, columns, &left);
        tile.source = first;
        tile.vector_pitch = (size_t)(vector - first);
        vector = next_vector(vector, columns, &left);
        if (columns->panel)
            fill_panel(&tile, columns);
        multiply_columns(&tile, filters, y + column);
    }
}

DECLARE_ATTEND(ISA);
DECLARE_DEPTHWISE(ISA);

static bool usable(void)
{
    return USABLE;
}

const struct kernel KERNEL_OF(ISA) = {.usable = usable,
                                      .lanes = LANES,
                                      .panel = PANEL,
                                      .reads_bf16 = true,
                                      .reads_i8 = true,
#ifdef LOAD_F16
                                      .reads_f16 = true,
                                      .reads_f8 = true,
#endif
                                      .rows = rows_all,
                                      .windows = windows_all,
                                      .pack_columns = pack_columns,
                                      .columns = columns_all,
                                      .depthwise = FUNCTION_OF(ISA, depthwise),
                                      .attend = FUNCTION_OF(ISA, attend),
                                      .widen = FUNCTION_OF(ISA, widen),
                                      .narrow = FUNCTION_OF(ISA, narrow)};
