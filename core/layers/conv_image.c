/* An image with its padding around it, which makes every window whole, cut into phases, which makes
 * windows with a stride neighbours: products then read a tap at one offset for all windows. */
#include <string.h>

#include "core/dense/vector.h"
#include "core/layers/conv.h"

/* A few numbers, in pieces like conv_copy_line()'s: up to seven more are cleared, which come next.
 */
static inline float *zeros(float *to, size_t count)
{
    static const float none[8];
    for (size_t i = 0; i < count; i += 8)
        memcpy(to + i, none, sizeof none);
    return to + count;
}

/* Without a stride. What lies between two lines, the right padding of one and the left of the next,
 * is cleared in one piece. */
static inline float *pad_channel(const struct conv *conv, const float *image, float *to)
{
    to = zeros(to, conv->top * conv->line_w + conv->left);
    for (size_t h = 0; h < conv->in_h; h++, image += conv->in_w) {
        if (h > 0)
            to = zeros(to, conv->right + conv->left);
        to = conv_copy_line(to, image, conv->in_w);
    }
    return zeros(to, conv->right + conv->bottom * conv->line_w);
}

/* Where along an axis of `in` numbers a phase holds them: [*first, *end) of its `size`. */
static inline void clip_phase(const struct conv *conv, size_t phase, size_t padding, size_t in,
                              size_t *first, size_t *end)
{
    size_t stride = conv->stride;
    *first = padding > phase ? (padding - phase + stride - 1) / stride : 0;
    *end = in + padding > phase ? (in + padding - phase - 1) / stride + 1 : 0;
}

/* Every stride-th number; a loop of its own for the usual stride, which compilers make of shuffles.
 */
static inline float *copy_strided(float *to, const float *from, size_t count, size_t stride)
{
    if (stride == 2)
        for (size_t i = 0; i < count; i++)
            to[i] = from[2 * i];
    else
        for (size_t i = 0; i < count; i++)
            to[i] = from[i * stride];
    return to + count;
}

static inline float *pad_phase(const struct conv *conv, size_t p, size_t q, const float *image,
                               float *to)
{
    size_t top, bottom, left, right;
    clip_phase(conv, p, conv->top, conv->in_h, &top, &bottom);
    clip_phase(conv, q, conv->left, conv->in_w, &left, &right);
    right = right < conv->line_w ? right : conv->line_w;
    for (size_t h = 0; h < conv->line_h; h++) {
        if (h < top || h >= bottom || left >= right) {
            to = zeros(to, conv->line_w);
            continue;
        }
        const float *line = image + (h * conv->stride + p - conv->top) * conv->in_w;
        to = zeros(to, left);
        to = copy_strided(to, line + left * conv->stride + q - conv->left, right - left,
                          conv->stride);
        to = zeros(to, conv->line_w - right);
    }
    return to;
}

VECTORIZED void conv_pad(const struct conv *conv, const float *image, float *to)
{
    size_t plane = conv->in_h * conv->in_w, channels = conv->in_channels / conv->groups;
    if (conv->stride == 1 && conv->top + conv->bottom + conv->left + conv->right == 0) {
        memcpy(to, image, channels * plane * sizeof *to);
        return;
    }
    for (size_t channel = 0; channel < channels; channel++, image += plane) {
        if (conv->stride == 1)
            to = pad_channel(conv, image, to);
        for (size_t p = 0; conv->stride > 1 && p < conv->phases_h; p++)
            for (size_t q = 0; q < conv->phases_w; q++)
                to = pad_phase(conv, p, q, image, to);
    }
}
