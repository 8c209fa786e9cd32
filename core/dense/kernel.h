/* Kernels: the inner loops of dense algebra, one set per instruction set. Private to gemm.c,
 * conv.c, attention, kernel.c and kernel_openblas.c.
 *
 * Every kernel computes an output element with one accumulator that walks k upwards, whatever the
 * number of rows, the position in a tile or the thread: a row's bits cannot depend on its batch.
 * (Bits may differ between kernels: some machines fuse the multiply and the add.) */
#ifndef CORE_KERNEL_H
#define CORE_KERNEL_H

#include <stdbool.h>
#include <stddef.h>

#include "core/dense/attend.h"
#include "core/dense/panels.h"
#include "core/load/tensor.h"

/* Weights W[n, k] as the kernel reads them: panels of `panel` consecutive outputs, each with one
 * number per output for every k in turn; BF16 numbers in pairs (paired_place()). The last panel is
 * padded with zeros. */
struct packed {
    const void *panels; /* [panels, k, panel] of dtype; 64-byte aligned */
    enum dtype dtype;
    const float *scales; /* [panels, k / SCALED_GROUP rounded up, panel] of I8; of F8_E4M3, FP8_UNIT
                            times as large; else NULL */
    size_t n, k;
    struct columns_of columns; /* to compute; the rest of y is left alone */
};

/* Kernels read FP8 as halfs, which are 2^-8 of it. */
#define FP8_UNIT 0x1p8f

/* A convolution's windows along a line: input k of window w is x[w * pitch + offsets[k]]. */
struct windows {
    const float *x;
    size_t pitch;
    const size_t *offsets; /* [k]; NULL: 0, 1, 2, ... */
    size_t count;
};

/* A convolution's weights W[count, k], packed by pack_columns(), and biases (may be NULL). */
struct filters {
    const float *packed, *bias;
    size_t count, k;
};

/* X[k, columns], where X[j, c] = x[offsets[j] + c / line * pitch + c % line]: a convolution's
 * windows, which overlap. Lines are whole vectors. Columns are computed two vectors at a time: if
 * their count is not a multiple of that, up to COLUMN_SLACK more are read and written. */
struct columns {
    const size_t *offsets; /* [k] */
    size_t count, line, pitch;
    /* Where many filters read them, the windows of two vectors are copied into a panel first: far
     * apart, as those of large images are, they fight for the same places of the cache. Every
     * `span` offsets are consecutive, and their windows overlap in the panel. */
    float *panel;                /* [panel_floats] NULL: they are read where they are */
    const size_t *panel_offsets; /* [k] */
    size_t span, panel_floats;
};

/* A convolution whose outputs have one input channel each, `share` consecutive ones the same. It is
 * computed in bands of output lines. */
struct depthwise {
    size_t channels, share; /* outputs */
    size_t in_h, in_w, out_h, out_w, kernel_h, kernel_w, stride;
    size_t top, line_w;  /* padding above; pixels of a padded line */
    size_t band;         /* output lines */
    const float *packed; /* [blocks of `lanes` channels, 1 + kernel_h * kernel_w, lanes]: biases,
                            taps */
    const uint32_t
        *places; /* [pixels of a band] where they go in its padded image, [pixels, lanes] */
};

struct kernel {
    bool (*usable)(void);                           /* on this machine */
    size_t lanes, panel;                            /* numbers of a vector, of a panel */
    bool reads_f16, reads_bf16, reads_i8, reads_f8; /* otherwise such weights are packed as F32 */
    /* y[rows, n] = x[rows, k] W^T + bias; bias may be NULL. */
    void (*rows)(const struct packed *weights, const float *x, size_t rows, const float *bias,
                 float *y);
    /* Like rows(), with windows for rows. F32 weights only. NULL if the kernel has no such
     * product. */
    void (*windows)(const struct packed *weights, const struct windows *windows, const float *bias,
                    float *y);
    /* y[count, columns] = W X + bias; rows of y are `y_pitch` apart. pack_columns() only reorders
     * the weights: [count, k] numbers in and out. */
    void (*pack_columns)(const float *weights, size_t count, size_t k, float *packed);
    void (*columns)(const struct filters *filters, const struct columns *columns, const float *x,
                    float *y, size_t y_pitch);
    /* x: [channels / share, in_h, in_w], y: [channels, out_h, out_w]. The workspace, aligned to
     * cache lines, holds a band's padded image and its results, `lanes` numbers for each pixel.
     * Products are not fused with sums: all kernels give the same bits. */
    void (*depthwise)(const struct depthwise *conv, const float *x, float *workspace, float *y);
    /* attend.h */
    void (*attend)(const struct attended *block, struct attending *queries, size_t count,
                   float scale);
    void (*widen)(const uint16_t *halfs, size_t count, float *floats);
    void (*narrow)(const float *floats, size_t count, uint16_t *halfs);
};

enum { COLUMN_SLACK = 64 };

extern const struct kernel kernel_generic, kernel_openblas;
#ifdef MOED_X86
extern const struct kernel kernel_avx2, kernel_avx512;
#endif
#ifdef MOED_NEON
extern const struct kernel kernel_neon;
#endif

/* Those that CMakeLists.txt compiles for each instruction set; declared here for kernel.c. */
#define DECLARE_ATTEND(isa)                                                                        \
    void FUNCTION_OF(isa, attend)(const struct attended *block, struct attending *queries,         \
                                  size_t count, float scale);                                      \
    void FUNCTION_OF(isa, widen)(const uint16_t *halfs, size_t count, float *floats);              \
    void FUNCTION_OF(isa, narrow)(const float *floats, size_t count, uint16_t *halfs)

#define DECLARE_DEPTHWISE(isa)                                                                     \
    void FUNCTION_OF(isa, depthwise)(const struct depthwise *conv, const float *x,                 \
                                     float *workspace, float *y)

/* The best usable kernel, or the one the environment variable MOED_KERNEL names. */
const struct kernel *kernel_get(void);

#endif
