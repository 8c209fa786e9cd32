/* Depthwise convolutions. CMakeLists.txt compiles this file once for every instruction set (isa.h).
 *
 * A vector holds one pixel of LANES channels. Images are transposed to that form, with their
 * padding around them, and results are transposed back: whatever an image's size and the stride, no
 * lane is idle, and no window wraps around an edge. */
#include <string.h>

#include "core/dense/kernel.h"
#include "core/dense/tile.h"
#include "core/shape.h"

DECLARE_DEPTHWISE(ISA);

#define INLINE static inline __attribute__((always_inline))

enum { QUAD = 4 };
typedef float quad __attribute__((vector_size(QUAD * sizeof(float))));
typedef float vec __attribute__((vector_size(LANES * sizeof(float))));

/* Images are transposed by four pixels of PART channels, which fill four vectors: pixels of a
 * channel and of the one four further on, or channels of a pixel. */
#if LANES > 4
enum { PART = 2 * QUAD };
#define QUADS(a, b, c, d) a, b, c, d, a + QUAD, b + QUAD, c + QUAD, d + QUAD
#else
enum { PART = QUAD };
#define QUADS(a, b, c, d) a, b, c, d
#endif
typedef float part __attribute__((vector_size(PART * sizeof(float))));

/* A line of the cache holds so many pixels of a channel, which are moved one after the other:
 * images tend to lie powers of two apart, where the cache holds but a few of their lines. */
enum { CHUNK = 16 };

/* Hardware prefetches some streams well, but not one for every lane: software does, of large images
 * so many pixels ahead, of others, which are one band, the next block's. */
enum { PIXELS_AHEAD = 4 * CHUNK };

/* Channels that are worked on; lanes beyond the last channel have its images. */
struct block {
    const struct depthwise *conv;
    const float *packed;
    const float *x[LANES];
    float *y[LANES];
    float *image, *results;
    size_t ahead; /* pixels to prefetch by */
};

static size_t min_size(size_t a, size_t b)
{
    return a < b ? a : b;
}

INLINE quad load_quad(const float *from)
{
    quad value;
    memcpy(&value, from, sizeof value);
    return value;
}

INLINE part load_part(const float *const channels[PART], size_t pixel)
{
    quad first = load_quad(channels[0] + pixel);
#if LANES > 4
    return __builtin_shufflevector(first, load_quad(channels[QUAD] + pixel), QUADS(0, 1, 2, 3));
#else
    return first;
#endif
}

/* Four pixels of channel 0 or, if `second`, of channel QUAD. */
INLINE quad half_of(part value, const bool second)
{
#if LANES > 4
    return second ? __builtin_shufflevector(value, value, 4, 5, 6, 7)
                  : __builtin_shufflevector(value, value, 0, 1, 2, 3);
#else
    (void)second;
    return value;
#endif
}

/* Turns one form into the other. */
INLINE void transpose(part p[QUAD])
{
    const part ab_low = __builtin_shufflevector(p[0], p[1], QUADS(0, PART, 1, PART + 1)),
               ab_high = __builtin_shufflevector(p[0], p[1], QUADS(2, PART + 2, 3, PART + 3)),
               cd_low = __builtin_shufflevector(p[2], p[3], QUADS(0, PART, 1, PART + 1)),
               cd_high = __builtin_shufflevector(p[2], p[3], QUADS(2, PART + 2, 3, PART + 3));
    p[0] = __builtin_shufflevector(ab_low, cd_low, QUADS(0, 1, PART, PART + 1));
    p[1] = __builtin_shufflevector(ab_low, cd_low, QUADS(2, 3, PART + 2, PART + 3));
    p[2] = __builtin_shufflevector(ab_high, cd_high, QUADS(0, 1, PART, PART + 1));
    p[3] = __builtin_shufflevector(ab_high, cd_high, QUADS(2, 3, PART + 2, PART + 3));
}

/* Pixels [from, from + count) of a part's channels go where `places` says. */
INLINE void gather_part(const float *const x[PART], size_t from, size_t count,
                        const uint32_t *places, float *image)
{
    size_t i = 0;
    for (; i + QUAD <= count; i += QUAD) {
        part p[QUAD];
#pragma GCC unroll 4
        for (size_t j = 0; j < QUAD; j++)
            p[j] = load_part(x + j, from + i);
        transpose(p);
#pragma GCC unroll 4
        for (size_t j = 0; j < QUAD; j++)
            memcpy(image + places[i + j], &p[j], sizeof p[j]);
    }
    for (; i < count; i++)
        for (size_t j = 0; j < PART; j++)
            image[places[i] + j] = x[j][from + i];
}

static void gather(const struct block *block, size_t from, size_t count, float *image)
{
    const uint32_t *places = block->conv->places;
    for (size_t i = 0; i < count; i += CHUNK) {
        for (size_t lane = 0; lane < LANES; lane += PART) {
            const float *const *x = block->x + lane;
            for (size_t j = 0; j < PART; j++)
                __builtin_prefetch(x[j] + from + i + block->ahead);
            if (i + CHUNK <= count)
                gather_part(x, from + i, CHUNK, places + i, image + lane);
            else
                gather_part(x, from + i, count - i, places + i, image + lane);
        }
    }
}

/* Channel by channel. */
INLINE void scatter_chunk(const float *results, float *const y[PART], size_t to)
{
    part p[CHUNK];
#pragma GCC unroll 16
    for (size_t i = 0; i < CHUNK; i++)
        memcpy(&p[i], results + i * LANES, sizeof p[i]);
#pragma GCC unroll 4
    for (size_t i = 0; i < CHUNK; i += QUAD)
        transpose(p + i);
#pragma GCC unroll 8
    for (size_t j = 0; j < PART; j++)
#pragma GCC unroll 4
        for (size_t i = 0; i < CHUNK; i += QUAD) {
            quad pixels = half_of(p[i + j % QUAD], j >= QUAD);
            memcpy(y[j] + to + i, &pixels, sizeof pixels);
        }
}

/* Fewer pixels than a chunk. */
static void scatter_rest(const float *results, float *const y[PART], size_t to, size_t count)
{
    size_t i = 0;
    for (; i + QUAD <= count; i += QUAD) {
        part p[QUAD];
#pragma GCC unroll 4
        for (size_t j = 0; j < QUAD; j++)
            memcpy(&p[j], results + (i + j) * LANES, sizeof p[j]);
        transpose(p);
#pragma GCC unroll 8
        for (size_t j = 0; j < PART; j++) {
            quad pixels = half_of(p[j % QUAD], j >= QUAD);
            memcpy(y[j] + to + i, &pixels, sizeof pixels);
        }
    }
    for (; i < count; i++)
        for (size_t j = 0; j < PART; j++)
            y[j][to + i] = results[i * LANES + j];
}

static void scatter(const struct block *block, size_t to, size_t count)
{
    for (size_t i = 0; i < count; i += CHUNK)
        for (size_t lane = 0; lane < LANES; lane += PART) {
            const float *results = block->results + i * LANES + lane;
            if (i + CHUNK <= count)
                scatter_chunk(results, block->y + lane, to + i);
            else
                scatter_rest(results, block->y + lane, to + i, count - i);
        }
}

INLINE vec load(const float *from)
{
    vec value;
    memcpy(&value, from, sizeof value);
    return value;
}

enum { MAX_PIXELS = 8 };

/* Neighbours of a line, whose sums stay in registers: all callers pass a constant for `pixels`. */
INLINE void filter(const struct depthwise *conv, const float *packed, const float *image,
                   float *results, const unsigned pixels, size_t stride)
{
    vec sum[MAX_PIXELS];
#pragma GCC unroll 8
    for (unsigned i = 0; i < pixels; i++)
        sum[i] = load(packed);
    for (size_t kh = 0; kh < conv->kernel_h; kh++, image += conv->line_w * LANES) {
        const float *from = image;
        for (size_t kw = 0; kw < conv->kernel_w; kw++, from += LANES) {
            vec tap = load(packed += LANES);
#pragma GCC unroll 8
            for (unsigned i = 0; i < pixels; i++)
                sum[i] += load(from + i * stride * LANES) * tap;
        }
    }
#pragma GCC unroll 8
    for (unsigned i = 0; i < pixels; i++)
        memcpy(results + i * LANES, &sum[i], sizeof sum[i]);
}

static void filter_pixels(const struct block *block, const float *image, float *results,
                          size_t pixels)
{
    const struct depthwise *conv = block->conv;
    switch (pixels) {
#define CASE(n)                                                                                    \
    case n:                                                                                        \
        if (conv->stride == 1)                                                                     \
            filter(conv, block->packed, image, results, n, 1);                                     \
        else                                                                                       \
            filter(conv, block->packed, image, results, n, conv->stride);                          \
        break;
        CASE(1)
        CASE(2)
        CASE(3)
        CASE(4)
        CASE(5)
        CASE(6)
        CASE(7)
        CASE(8)
#undef CASE
    }
}

/* Lines are cut into pieces of nearly equal length. */
static void filter_lines(const struct block *block, size_t lines)
{
    const struct depthwise *conv = block->conv;
    size_t pieces = (conv->out_w + MAX_PIXELS - 1) / MAX_PIXELS;
    size_t length = (conv->out_w + pieces - 1) / pieces;
    float *results = block->results;
    for (size_t oh = 0; oh < lines; oh++) {
        const float *line = block->image + oh * conv->stride * conv->line_w * LANES;
        for (size_t ow = 0; ow < conv->out_w; ow += length) {
            size_t pixels = min_size(length, conv->out_w - ow);
            filter_pixels(block, line + ow * conv->stride * LANES, results, pixels);
            results += pixels * LANES;
        }
    }
}

/* Output lines [first, first + lines), of padded lines [begin, end). Between the lines' ends zeros
 * stay; those above and below the image are written unless `padded`. */
static void convolve_band(const struct block *block, size_t first, size_t lines, bool padded)
{
    const struct depthwise *conv = block->conv;
    size_t begin = first * conv->stride, end = begin + (lines - 1) * conv->stride + conv->kernel_h;
    size_t from = min_size(max_size(begin, conv->top), end);
    size_t to = max_size(from, min_size(end, conv->top + conv->in_h));
    size_t line = conv->line_w * LANES;
    float *image = block->image + (from - begin) * line;
    if (!padded) {
        memset(block->image, 0, (from - begin) * line * sizeof *image);
        memset(image + (to - from) * line, 0, (end - to) * line * sizeof *image);
    }
    if (to > from)
        gather(block, (from - conv->top) * conv->in_w, (to - from) * conv->in_w, image);
    filter_lines(block, lines);
    scatter(block, first * conv->out_w, lines * conv->out_w);
}

void FUNCTION_OF(ISA, depthwise)(const struct depthwise *conv, const float *x, float *workspace,
                                 float *y)
{
    size_t taps = conv->kernel_h * conv->kernel_w, uses = 0;
    size_t image = ((conv->band - 1) * conv->stride + conv->kernel_h) * conv->line_w * LANES;
    struct block block = {.conv = conv,
                          .packed = conv->packed,
                          .image = workspace,
                          .results = workspace + image,
                          .ahead = PIXELS_AHEAD};
    if (conv->band >= conv->out_h)
        block.ahead = LANES / conv->share * conv->in_h * conv->in_w;
    memset(workspace, 0, image * sizeof *workspace);
    for (size_t channel = 0; channel < conv->channels; channel += LANES) {
        for (size_t lane = 0; lane < LANES; lane++) {
            block.x[lane] = x;
            block.y[lane] = y;
            if (channel + lane + 1 >= conv->channels)
                continue;
            y += conv->out_h * conv->out_w;
            if (++uses < conv->share)
                continue;
            x += conv->in_h * conv->in_w;
            uses = 0;
        }
        for (size_t oh = 0; oh < conv->out_h; oh += conv->band)
            convolve_band(&block, oh, min_size(conv->band, conv->out_h - oh),
                          channel > 0 && conv->band >= conv->out_h);
        block.packed += (1 + taps) * LANES;
    }
}
