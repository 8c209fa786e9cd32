/* Tiles are the innermost loops of a kernel. Private to kernel.c, which cuts products into tiles,
 * and tile.c, which computes one. Every instruction set has one function per source of weights.
 * Each is an object of its own, because its unrolled loops take long to compile. */
#ifndef CORE_TILE_H
#define CORE_TILE_H

#include <stdbool.h>
#include <stddef.h>

#include "core/dense/isa.h"
#include "core/load/tensor.h"

/* What a tile multiplies: packed weights of a dtype; packed F32 weights with inputs found through
 * offsets; or columns found through offsets. */
enum source {
    SOURCE_F32,
    SOURCE_BF16,
    SOURCE_F16,
    SOURCE_I8,
    SOURCE_F8,
    SOURCE_WINDOWS,
    SOURCE_COLUMNS,
};

/* A tile: rows of x times panels of weights, over `k` inputs. */
struct tile {
    const void *source;    /* first panel, or X's first column */
    size_t panel_pitch;    /* numbers from one panel to the next */
    const float *scales;   /* SOURCE_I8, SOURCE_F8: the first panel's, PANEL for every 32 inputs */
    size_t scales_pitch;   /* from one panel's to the next's */
    size_t vector_pitch;   /* SOURCE_COLUMNS: from the first vector to the second */
    const size_t *offsets; /* SOURCE_WINDOWS, SOURCE_COLUMNS */
    const char *ahead;     /* what to prefetch meanwhile, `ahead_pitch` bytes for every k */
    size_t ahead_pitch;
    const float *x;
    size_t x_pitch, k;
    bool resumed;      /* y holds partial sums; otherwise sums begin with the bias */
    const float *bias; /* one per column (SOURCE_COLUMNS: per row); may be NULL */
    float *y;
    size_t y_pitch;
    size_t columns; /* valid ones; the last panel may have fewer than PANEL */
};

/* How many panels a tile of `rows` rows spans: as many as there are accumulators for. */
static inline unsigned panels_for(unsigned rows)
{
    return rows * 4 <= MAX_ROWS ? 4 : rows * 2 <= MAX_ROWS ? 2 : 1;
}

/* Computes a tile of `rows` <= MAX_ROWS rows and panels_for(rows) panels if it is wide, else
 * one. */
typedef void compute_tile(const struct tile *tile, unsigned rows, bool wide);

/* For instance tile_avx2_f32. */
#define TILE_NAME(isa, source) tile_##isa##_##source
#define TILE_OF(isa, source)   TILE_NAME(isa, source)

compute_tile TILE_OF(ISA, f32), TILE_OF(ISA, bf16), TILE_OF(ISA, f16), TILE_OF(ISA, i8),
    TILE_OF(ISA, f8), TILE_OF(ISA, windows), TILE_OF(ISA, columns);

#endif
