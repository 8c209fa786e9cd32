/* The products of a convolution, by what the lanes of a vector are:
 *
 * - by lines: windows along an output line, where lines are whole vectors; results need no copy
 * - by windows: output channels, where they fill vectors better; the results of a line are
 *   transposed
 * - by images: the same for several rows at once, where weights are more than a cache holds
 * - by columns: windows of all lines at once. The few results whose windows wrapped around an edge
 *   are dropped
 * - by channels: like that, for groups of one input channel, whose few taps stay in registers
 * - depthwise: channels of such groups, where they fill vectors well (conv_depthwise.c)
 *
 * All walk a window's taps in the same order. */
#include <string.h>

#include "core/dense/vector.h"
#include "core/layers/conv.h"

static const float *bias_of(const struct conv *conv, size_t group)
{
    return conv->bias.values ? conv->bias.values + group * (conv->out_channels / conv->groups)
                             : NULL;
}

static size_t channels_of(const struct conv *conv)
{
    return conv->out_channels / conv->groups;
}

/* Of a row: everything, and one channel group's part. */
static size_t in_row(const struct conv *conv)
{
    return conv->in_channels * conv->in_h * conv->in_w;
}

static size_t out_plane(const struct conv *conv)
{
    return conv->out_h * conv->out_w;
}

static size_t out_row(const struct conv *conv)
{
    return conv->out_channels * out_plane(conv);
}

/* A group's image in the workspace, or where it is. */
static const float *padded(const struct conv *conv, const float *x, float *workspace)
{
    if (conv->direct)
        return x;
    conv_pad(conv, x, workspace);
    return workspace;
}

/* ---- by lines, by columns ---- */

static struct filters filters_of(const struct conv *conv, size_t group)
{
    size_t channels = channels_of(conv);
    return (struct filters){conv->packed + group * channels * conv->k, bias_of(conv, group),
                            channels, conv->k};
}

static void by_lines(const struct conv *conv, size_t group, size_t rows, const float *x,
                     float *workspace, float *y)
{
    const struct filters filters = filters_of(conv, group);
    struct columns columns = conv->columns;
    columns.panel = columns.panel_floats ? workspace + conv->padded_elements : NULL;
    (void)rows;
    kernel_get()->columns(&filters, &columns, padded(conv, x, workspace), y, out_plane(conv));
}

/* Result lines are as wide as those of the image; their tails, where windows wrapped around its
 * edge, are left behind. */
VECTORIZED static void keep_lines(const struct conv *conv, const float *wide, size_t channels,
                                  size_t pitch, float *y)
{
    for (size_t channel = 0; channel < channels; channel++)
        for (size_t oh = 0; oh < conv->out_h; oh++, y += conv->out_w)
            conv_copy_line(y, wide + channel * pitch + oh * conv->line_w, conv->out_w);
}

static void by_columns(const struct conv *conv, size_t group, size_t rows, const float *x,
                       float *workspace, float *y)
{
    const struct filters filters = filters_of(conv, group);
    size_t pitch = conv->columns.count + COLUMN_SLACK;
    struct columns columns = conv->columns;
    float *wide = workspace + conv->padded_elements;
    columns.panel = columns.panel_floats ? wide + filters.count * pitch : NULL;
    (void)rows;
    kernel_get()->columns(&filters, &columns, padded(conv, x, workspace), wide, pitch);
    keep_lines(conv, wide, filters.count, pitch, y);
}

/* ---- by channels ---- */

enum { OCT = 8, OCTS_AT_ONCE = 4 };
typedef float oct __attribute__((vector_size(OCT * sizeof(float))));

/* One filter over the next windows of the padded image, whose sums stay in registers. */
static inline __attribute__((always_inline)) void filter_windows(const struct conv *conv,
                                                                 const float *taps, float bias,
                                                                 const float *image, float *y)
{
    oct sum[OCTS_AT_ONCE], value;
#pragma GCC unroll 4
    for (size_t v = 0; v < OCTS_AT_ONCE; v++)
        sum[v] = (oct){0} + bias;
    for (size_t t = 0; t < conv->k; t++) {
        const float *from = image + conv->window[t], tap = taps[t];
#pragma GCC unroll 4
        for (size_t v = 0; v < OCTS_AT_ONCE; v++) {
            memcpy(&value, from + v * OCT, sizeof value);
            sum[v] += value * tap;
        }
    }
    memcpy(y, sum, sizeof sum);
}

/* One filter over all windows, and up to COLUMN_SLACK more. */
VECTORIZED static void filter_plane(const struct conv *conv, const float *taps, float bias,
                                    const float *image, float *y)
{
    for (size_t i = 0; i < conv->columns.count; i += OCTS_AT_ONCE * OCT)
        filter_windows(conv, taps, bias, image + i, y + i);
}

static void by_channels(const struct conv *conv, size_t group, size_t rows, const float *x,
                        float *workspace, float *y)
{
    size_t channels = channels_of(conv), plane = out_plane(conv);
    const float *bias = bias_of(conv, group), *taps = conv->weight.values;
    float *wide = workspace + conv->padded_elements;
    const float *image = padded(conv, x, workspace);
    (void)rows;
    for (size_t i = 0; i < channels; i++) {
        filter_plane(conv, taps + (group * channels + i) * conv->k, bias ? bias[i] : 0.0f, image,
                     wide);
        keep_lines(conv, wide, 1, 0, y + i * plane);
    }
}

/* ---- by windows, by images ---- */

enum { QUAD = 4 };
typedef float quad __attribute__((vector_size(QUAD * sizeof(float))));

static inline quad load_quad(const float *from)
{
    quad value;
    memcpy(&value, from, sizeof value);
    return value;
}

/* Transposes four by four numbers: lines `pitch` apart become columns of lines `to_pitch` apart. */
static inline void transpose_quad(const float *from, size_t pitch, float *to, size_t to_pitch)
{
    const quad a = load_quad(from), b = load_quad(from + pitch), c = load_quad(from + 2 * pitch),
               d = load_quad(from + 3 * pitch);
    const quad ab_low = __builtin_shufflevector(a, b, 0, 4, 1, 5),
               ab_high = __builtin_shufflevector(a, b, 2, 6, 3, 7),
               cd_low = __builtin_shufflevector(c, d, 0, 4, 1, 5),
               cd_high = __builtin_shufflevector(c, d, 2, 6, 3, 7);
    const quad transposed[QUAD] = {__builtin_shufflevector(ab_low, cd_low, 0, 1, 4, 5),
                                   __builtin_shufflevector(ab_low, cd_low, 2, 3, 6, 7),
                                   __builtin_shufflevector(ab_high, cd_high, 0, 1, 4, 5),
                                   __builtin_shufflevector(ab_high, cd_high, 2, 3, 6, 7)};
    for (size_t i = 0; i < QUAD; i++)
        memcpy(to + i * to_pitch, &transposed[i], sizeof transposed[i]);
}

/* y[channel * pitch + window] = line[window][channel]. Channel by channel: planes tend to lie
 * powers of two apart, where the cache holds but a few of their lines. */
VECTORIZED static void transpose_line(const float *line, size_t windows, size_t channels,
                                      size_t pitch, float *y)
{
    size_t channel = 0;
    for (; channel + QUAD <= channels; channel += QUAD) {
        size_t window = 0;
        for (; window + QUAD <= windows; window += QUAD)
            transpose_quad(line + window * channels + channel, channels,
                           y + channel * pitch + window, pitch);
        for (; window < windows; window++)
            for (size_t i = channel; i < channel + QUAD; i++)
                y[i * pitch + window] = line[window * channels + i];
    }
    for (; channel < channels; channel++)
        for (size_t window = 0; window < windows; window++)
            y[channel * pitch + window] = line[window * channels + channel];
}

static void by_windows(const struct conv *conv, size_t group, size_t rows, const float *x,
                       float *workspace, float *y)
{
    float *line = workspace + conv->padded_elements;
    const float *image = padded(conv, x, workspace);
    (void)rows;
    for (size_t oh = 0; oh < conv->out_h; oh++) {
        const struct windows windows = {image + oh * conv->line_w, 1, conv->window, conv->out_w};
        gemm_windows(&conv->panels[group], &windows, bias_of(conv, group), line);
        transpose_line(line, conv->out_w, channels_of(conv), out_plane(conv), y + oh * conv->out_w);
    }
}

/* Windows that are multiplied with all weights at once. */
enum { WINDOWS_AT_ONCE = 96 };

size_t conv_images_at_once(const struct conv *conv)
{
    return max_size(1, WINDOWS_AT_ONCE / out_plane(conv));
}

/* Every window of an image written out: [windows, k]. */
VECTORIZED static void write_windows(const struct conv *conv, const float *image, float *to)
{
    for (size_t oh = 0; oh < conv->out_h; oh++)
        for (size_t ow = 0; ow < conv->out_w; ow++) {
            const float *first = image + oh * conv->line_w + ow;
            for (size_t k = 0; k < conv->k; k++)
                *to++ = first[conv->window[k]];
        }
}

static void by_images(const struct conv *conv, size_t group, size_t rows, const float *x,
                      float *workspace, float *y)
{
    size_t plane = out_plane(conv), channels = channels_of(conv);
    float *windows = workspace + conv->padded_elements;
    float *results = windows + conv_images_at_once(conv) * plane * conv->k;
    for (size_t row = 0; row < rows; row++)
        write_windows(conv, padded(conv, x + row * in_row(conv), workspace),
                      windows + row * plane * conv->k);
    gemm_rows(&conv->panels[group], windows, rows * plane, bias_of(conv, group), results);
    for (size_t row = 0; row < rows; row++)
        transpose_line(results + row * plane * channels, plane, channels, plane,
                       y + row * out_row(conv));
}

conv_product *const CONV_PRODUCTS[CONV_WAYS] = {
    [BY_LINES] = by_lines,     [BY_WINDOWS] = by_windows,   [BY_IMAGES] = by_images,
    [BY_COLUMNS] = by_columns, [BY_CHANNELS] = by_channels, [BY_DEPTHWISE] = conv_by_depthwise};

size_t conv_product_floats(const struct conv *conv)
{
    size_t channels = channels_of(conv), wide = conv->columns.count + COLUMN_SLACK;
    switch (conv->way) {
    case BY_LINES:
        return conv->columns.panel_floats;
    case BY_WINDOWS:
        return channels * conv->out_w;
    case BY_IMAGES:
        return conv_images_at_once(conv) * out_plane(conv) * (conv->k + channels);
    case BY_COLUMNS:
        return channels * wide + conv->columns.panel_floats;
    case BY_DEPTHWISE:
        return conv_depthwise_floats(conv);
    default:
        return wide;
    }
}
