/* max_pool2d, avg_pool2d, adaptive_avg_pool2d over [channels, height, width], as PyTorch's: floor
 * mode, dilation 1; the average counts padding (count_include_pad). */
#include <math.h>

#include "core/dense/vector.h"
#include "core/layers/ops.h"
#include "core/memory.h"

/* Bounds windows: no image needs more. */
enum { MAX_POOL_KERNEL = 4096 };

struct pool {
    size_t kernel, stride, padding;
    size_t in_h, in_w, out_h, out_w;
};

static int pool_build(struct layer *layer, const struct scope *scope, struct config_node *node,
                      struct error *err)
{
    (void)scope;
    struct pool *pool = layer->state = xcalloc(1, sizeof *pool);
    int64_t kernel, stride, padding;
    if (config_integer(node, "kernel", CONFIG_REQUIRED, within(1, MAX_POOL_KERNEL), &kernel, err) !=
            0 ||
        config_integer(node, "stride", kernel, within(1, MAX_POOL_KERNEL), &stride, err) != 0 ||
        config_integer(node, "padding", 0, within(0, kernel / 2), &padding, err) != 0)
        return -1;
    char text[SHAPE_TEXT_BYTES];
    const struct moed_shape *in = &layer->in;
    if (in->rank != 3)
        return config_error(node, NULL, err, "%s needs rows of 3 axes, got shape %s",
                            layer->op->name, shape_text(in, text));
    *pool = (struct pool){
        (size_t)kernel, (size_t)stride, (size_t)padding, in->dims[1], in->dims[2], 0, 0};
    if (pool->in_h + 2 * pool->padding < pool->kernel ||
        pool->in_w + 2 * pool->padding < pool->kernel)
        return config_error(node, "kernel", err, "larger than the padded input %s",
                            shape_text(in, text));
    pool->out_h = (pool->in_h + 2 * pool->padding - pool->kernel) / pool->stride + 1;
    pool->out_w = (pool->in_w + 2 * pool->padding - pool->kernel) / pool->stride + 1;
    plan_workspace(&layer->plan, max_size(pool->in_w, 2 * pool->out_h * pool->out_w));
    struct moed_shape out = {.rank = 3, .dims = {in->dims[0], pool->out_h, pool->out_w}};
    return layer_set_out(layer, node, &out, err);
}

/* Outputs [*first, *last) of a line are those whose windows have an input, not padding, at tap
 * `tap`. */
static void clip(const struct pool *pool, size_t tap, size_t in, size_t out, size_t *first,
                 size_t *last)
{
    size_t stride = pool->stride, padding = pool->padding;
    *first = tap < padding ? (padding - tap + stride - 1) / stride : 0;
    size_t end = in + padding; /* taps from here on are past the input */
    *last = end > tap ? (end - tap - 1) / stride + 1 : 0;
    if (*last > out)
        *last = out;
}

/* Applies one tap of a line of windows: to[i] takes in line[i * stride]. */
typedef void take_tap(const float *line, size_t stride, size_t count, float *to);

/* A window with a NaN gives NaN, as in PyTorch. This form compiles to one instruction and a blend,
 * without branches. */
static float larger(float a, float b)
{
    float number = a > b ? a : b; /* b if either is NaN */
    return a != a ? a : number;
}

static void take_max(const float *line, size_t stride, size_t count, float *to)
{
    for (size_t i = 0; i < count; i++)
        to[i] = larger(line[i * stride], to[i]);
}

static void take_sum(const float *line, size_t stride, size_t count, float *to)
{
    for (size_t i = 0; i < count; i++)
        to[i] += line[i * stride];
}

static void fill(float *to, size_t count, float value)
{
    for (size_t i = 0; i < count; i++)
        to[i] = value;
}

/* How a window is pooled: from `start`, tap by tap, then times `factor`. */
struct pooling {
    take_tap *take;
    float start, factor;
};

/* Pools one line of windows: first vertically, whole lines of input at a time, then
 * horizontally. */
static void pool_line(const struct pool *pool, const struct pooling *pooling, const float *plane,
                      size_t oh, float *column, float *y)
{
    fill(column, pool->in_w, pooling->start);
    for (size_t kh = 0; kh < pool->kernel; kh++) {
        size_t at = oh * pool->stride + kh;
        if (at >= pool->padding && at - pool->padding < pool->in_h)
            pooling->take(plane + (at - pool->padding) * pool->in_w, 1, pool->in_w, column);
    }
    fill(y, pool->out_w, pooling->start);
    for (size_t kw = 0; kw < pool->kernel; kw++) {
        size_t first, last;
        clip(pool, kw, pool->in_w, pool->out_w, &first, &last);
        if (first < last)
            pooling->take(column + first * pool->stride + kw - pool->padding, pool->stride,
                          last - first, y + first);
    }
}

static void pool_forward(const struct layer *layer, const struct run *run, size_t rows,
                         const float *x, float *y, const struct pooling *pooling)
{
    const struct pool *pool = layer->state;
    size_t planes = rows * layer->in.dims[0];
    for (size_t plane = 0; plane < planes; plane++, x += pool->in_h * pool->in_w)
        for (size_t oh = 0; oh < pool->out_h; oh++, y += pool->out_w) {
            pool_line(pool, pooling, x, oh, run_workspace(run), y);
            for (size_t i = 0; i < pool->out_w; i++)
                y[i] *= pooling->factor;
        }
}

/* Pools one plane with the usual windows, 2 x 2 with stride 2: first vertically, then horizontally
 * over the whole plane at once, since its lines are short. */
VECTORIZED static void max_of_four(const struct pool *pool, const float *x, float *column, float *y)
{
    size_t width = 2 * pool->out_w, windows = pool->out_h * pool->out_w;
    for (size_t oh = 0; oh < pool->out_h; oh++) {
        const float *top = x + 2 * oh * pool->in_w, *bottom = top + pool->in_w;
        for (size_t i = 0; i < width; i++)
            column[oh * width + i] = larger(top[i], bottom[i]);
    }
    for (size_t i = 0; i < windows; i++)
        y[i] = larger(column[2 * i], column[2 * i + 1]);
}

static void max_of_fours(const struct layer *layer, const struct run *run, size_t rows,
                         const float *x, float *y)
{
    const struct pool *pool = layer->state;
    size_t planes = rows * layer->in.dims[0];
    for (size_t plane = 0; plane < planes; plane++)
        max_of_four(pool, x + plane * pool->in_h * pool->in_w, run_workspace(run),
                    y + plane * pool->out_h * pool->out_w);
}

static void max_pool2d_forward(const struct layer *layer, const struct run *run, size_t rows,
                               const float *x, float *y)
{
    const struct pool *pool = layer->state;
    if (pool->kernel == 2 && pool->stride == 2 && pool->padding == 0)
        max_of_fours(layer, run, rows, x, y);
    else
        pool_forward(layer, run, rows, x, y, &(struct pooling){take_max, -INFINITY, 1.0f});
}

static void avg_pool2d_forward(const struct layer *layer, const struct run *run, size_t rows,
                               const float *x, float *y)
{
    const struct pool *pool = layer->state;
    float factor = 1.0f / (float)(pool->kernel * pool->kernel);
    pool_forward(layer, run, rows, x, y, &(struct pooling){take_sum, 0.0f, factor});
}

/* ---- adaptive_avg_pool2d ---- */

/* "size": [height, width] of the result. Window i of n over `in` numbers is [i in / n, (i + 1) in /
 * n), the end rounded up: windows overlap where n does not divide. */
static int adaptive_build(struct layer *layer, const struct scope *scope, struct config_node *node,
                          struct error *err)
{
    (void)scope;
    char text[SHAPE_TEXT_BYTES];
    struct moed_shape size;
    const struct moed_shape *in = &layer->in;
    if (in->rank != 3)
        return config_error(node, NULL, err, "%s needs rows of 3 axes, got shape %s",
                            layer->op->name, shape_text(in, text));
    if (config_shape(node, "size", 1, &size, err) != 0)
        return -1;
    if (size.rank != 2)
        return config_error(node, "size", err, "expected two sizes, height and width");
    struct moed_shape out = {3, {in->dims[0], size.dims[0], size.dims[1]}};
    layer->cost.macs = layer->in_elements;
    return layer_set_out(layer, node, &out, err);
}

static size_t window_start(size_t i, size_t in, size_t out)
{
    return i * in / out;
}

static size_t window_end(size_t i, size_t in, size_t out)
{
    return ((i + 1) * in + out - 1) / out;
}

static float mean_of_window(const float *plane, size_t width, size_t height, size_t from, size_t to)
{
    float sum = 0;
    for (size_t h = 0; h < height; h++)
        for (size_t w = from; w < to; w++)
            sum += plane[h * width + w];
    return sum / (float)(height * (to - from));
}

static void adaptive_forward(const struct layer *layer, const struct run *run, size_t rows,
                             const float *x, float *y)
{
    (void)run;
    size_t in_h = layer->in.dims[1], in_w = layer->in.dims[2];
    size_t out_h = layer->out.dims[1], out_w = layer->out.dims[2];
    for (size_t plane = 0; plane < rows * layer->in.dims[0]; plane++, x += in_h * in_w)
        for (size_t oh = 0; oh < out_h; oh++) {
            size_t top = window_start(oh, in_h, out_h), end = window_end(oh, in_h, out_h);
            for (size_t ow = 0; ow < out_w; ow++)
                *y++ = mean_of_window(x + top * in_w, in_w, end - top,
                                      window_start(ow, in_w, out_w), window_end(ow, in_w, out_w));
        }
}

const struct layer_op op_max_pool2d = {
    .name = "max_pool2d", .build = pool_build, .forward = max_pool2d_forward};
const struct layer_op op_avg_pool2d = {
    .name = "avg_pool2d", .build = pool_build, .forward = avg_pool2d_forward};
const struct layer_op op_adaptive_avg_pool2d = {.name = "adaptive_avg_pool2d",
                                                .format = 3,
                                                .build = adaptive_build,
                                                .forward = adaptive_forward};
