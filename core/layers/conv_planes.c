/* Groups of one input channel with a stride or a tiny image: too little work for a call each.
 *
 * All groups of a row are convolved in one loop. Where every number of a padded image comes from is
 * looked up in a table made at load; a few windows are computed, and no more. The taps are walked
 * in the same order as by channels, so results have the same bits. */
#include "core/dense/vector.h"
#include "core/layers/conv_filter.h"
#include "core/memory.h"

/* Beyond, lines are long enough to be copied. */
enum { TINY_WIDTH = 4, MOST_ELEMENTS = 1024 };

bool conv_planes_suit(const struct conv *conv)
{
    return (conv->stride > 1 || conv->in_w <= TINY_WIDTH) && conv->padded_elements <= MOST_ELEMENTS;
}

/* Of an image of one channel. */
static size_t padded_of(const struct conv *conv)
{
    return conv->padded_elements - COLUMN_SLACK;
}

/* Which number of a 0 and the image behind it stands at an element of the padded image. */
static int32_t source_of(const struct conv *conv, size_t element)
{
    size_t line = element / conv->line_w, phase = line / conv->line_h;
    size_t h = line % conv->line_h * conv->stride + phase / conv->phases_w;
    size_t w = element % conv->line_w * conv->stride + phase % conv->phases_w;
    bool inside = h >= conv->top && h - conv->top < conv->in_h && w >= conv->left &&
                  w - conv->left < conv->in_w;
    return inside ? (int32_t)((h - conv->top) * conv->in_w + w - conv->left + 1) : 0;
}

int conv_planes_plan(struct conv *conv, struct error *err)
{
    size_t plane = conv->out_h * conv->out_w, padded = padded_of(conv);
    if (!(conv->sources = calloc_checked(padded, sizeof *conv->sources, err)) ||
        !(conv->kept = calloc_checked(plane, sizeof *conv->kept, err)))
        return -1;
    for (size_t i = 0; i < padded; i++)
        conv->sources[i] = source_of(conv, i);
    for (size_t i = 0; i < plane; i++)
        conv->kept[i] = (int32_t)(i / conv->out_w * conv->line_w + i % conv->out_w);
    return 0;
}

static inline __attribute__((always_inline)) void filter(const struct conv *conv, const float *taps,
                                                         float bias, const float *image, float *y)
{
    size_t i = 0, count = conv->columns.count;
    for (; i + 16 < count; i += 32)
        filter_windows(conv, taps, bias, image + i, y + i, 4);
    if (i + 8 < count)
        filter_windows(conv, taps, bias, image + i, y + i, 2);
    else if (i < count)
        filter_windows(conv, taps, bias, image + i, y + i, 1);
}

/* plane: [1 + in_h * in_w] */
VECTORIZED static void convolve(const struct conv *conv, const float *restrict x,
                                float *restrict image, float *restrict wide, float *restrict plane,
                                float *restrict y)
{
    size_t channels = conv->out_channels / conv->groups, in = conv->in_h * conv->in_w;
    size_t out = conv->out_h * conv->out_w, padded = padded_of(conv);
    const float *taps = conv->weight.values, *bias = conv->bias.values;
    const int32_t *restrict sources = conv->sources, *restrict kept = conv->kept;
    plane[0] = 0;
    for (size_t group = 0; group < conv->groups; group++, x += in) {
        for (size_t i = 0; i < in; i++)
            plane[1 + i] = x[i];
        for (size_t i = 0; i < padded; i++)
            image[i] = plane[sources[i]];
        for (size_t i = 0; i < channels; i++, taps += conv->k, y += out) {
            filter(conv, taps, bias ? bias[group * channels + i] : 0.0f, image, wide);
            for (size_t o = 0; o < out; o++)
                y[o] = wide[kept[o]];
        }
    }
}

void conv_by_planes(const struct conv *conv, size_t group, size_t rows, const float *x,
                    float *workspace, float *y)
{
    (void)group; /* all of them */
    (void)rows;
    float *wide = workspace + conv->padded_elements;
    convolve(conv, x, workspace, wide, wide + conv->columns.count + COLUMN_SLACK, y);
}
