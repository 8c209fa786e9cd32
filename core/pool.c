/* max_pool2d, avg_pool2d over [channels, height, width], as PyTorch's: floor mode, dilation 1; the
 * average counts padding (count_include_pad). */
#include "layer.h"

#include <math.h>

/* A window beyond any image. */
enum { MAX_POOL_KERNEL = 4096 };

struct pool {
    size_t kernel, stride, padding;
    size_t in_h, in_w, out_h, out_w;
};

static int pool_build(struct layer *layer, struct build *build, struct config_node *node,
                      struct error *err)
{
    (void)build;
    struct pool *pool = layer->state = xcalloc(1, sizeof *pool);
    int64_t kernel, stride, padding;
    if (config_integer(node, "kernel", CONFIG_REQUIRED, 1, MAX_POOL_KERNEL, &kernel, err) != 0 ||
        config_integer(node, "stride", kernel, 1, MAX_POOL_KERNEL, &stride, err) != 0 ||
        config_integer(node, "padding", 0, 0, kernel / 2, &padding, err) != 0)
        return -1;
    char text[SHAPE_TEXT_BYTES];
    const struct moed_shape *in = &layer->in;
    if (in->rank != 3)
        return config_error(node, NULL, err, "%s needs rows of 3 axes, got shape %s",
                            layer->op->name, shape_text(in, text));
    *pool = (struct pool){(size_t)kernel, (size_t)stride, (size_t)padding,
                          in->dims[1],    in->dims[2],    0, 0};
    if (pool->in_h + 2 * pool->padding < pool->kernel || pool->in_w + 2 * pool->padding < pool->kernel)
        return config_error(node, "kernel", err, "larger than the padded input %s",
                            shape_text(in, text));
    pool->out_h = (pool->in_h + 2 * pool->padding - pool->kernel) / pool->stride + 1;
    pool->out_w = (pool->in_w + 2 * pool->padding - pool->kernel) / pool->stride + 1;
    struct moed_shape out = {.rank = 3, .dims = {in->dims[0], pool->out_h, pool->out_w}};
    return layer_set_out(layer, node, &out, err);
}

/* The part of a window that lies inside the input: [*first, *last). */
static void clip(const struct pool *pool, size_t at, size_t size, size_t *first, size_t *last)
{
    size_t begin = at * pool->stride, end = begin + pool->kernel;
    *first = begin > pool->padding ? begin - pool->padding : 0;
    *last = end - pool->padding < size ? end - pool->padding : size;
}

static float window_max(const float *plane, size_t width, const size_t h[2], const size_t w[2])
{
    float max = -INFINITY;
    for (size_t i = h[0]; i < h[1]; i++)
        for (size_t j = w[0]; j < w[1]; j++)
            if (plane[i * width + j] > max || isnan(plane[i * width + j]))
                max = plane[i * width + j];
    return max;
}

static float window_sum(const float *plane, size_t width, const size_t h[2], const size_t w[2])
{
    float sum = 0;
    for (size_t i = h[0]; i < h[1]; i++)
        for (size_t j = w[0]; j < w[1]; j++)
            sum += plane[i * width + j];
    return sum;
}

static void pool_forward(const struct layer *layer, size_t rows, const float *x, float *y,
                         float (*window)(const float *, size_t, const size_t[2], const size_t[2]),
                         float factor)
{
    const struct pool *pool = layer->state;
    const size_t planes = rows * layer->in.dims[0];
    size_t h[2], w[2];
    for (size_t plane = 0; plane < planes; plane++, x += pool->in_h * pool->in_w)
        for (size_t oh = 0; oh < pool->out_h; oh++) {
            clip(pool, oh, pool->in_h, &h[0], &h[1]);
            for (size_t ow = 0; ow < pool->out_w; ow++) {
                clip(pool, ow, pool->in_w, &w[0], &w[1]);
                *y++ = window(x, pool->in_w, h, w) * factor;
            }
        }
}

static void max_pool2d_forward(const struct layer *layer, const struct run *run, size_t rows,
                               const float *x, float *y)
{
    (void)run;
    pool_forward(layer, rows, x, y, window_max, 1.0f);
}

static void avg_pool2d_forward(const struct layer *layer, const struct run *run, size_t rows,
                               const float *x, float *y)
{
    (void)run;
    const struct pool *pool = layer->state;
    pool_forward(layer, rows, x, y, window_sum, 1.0f / (float)(pool->kernel * pool->kernel));
}

const struct layer_op op_max_pool2d = {
    .name = "max_pool2d", .build = pool_build, .forward = max_pool2d_forward};
const struct layer_op op_avg_pool2d = {
    .name = "avg_pool2d", .build = pool_build, .forward = avg_pool2d_forward};
