/* A convolution as it is planned at load, and the steps of its forward. Private to conv*.c. */
#ifndef CORE_CONV_H
#define CORE_CONV_H

#include <string.h>

#include "core/dense/gemm.h"
#include "core/dense/kernel.h"
#include "core/layers/layer.h"
#include "core/layers/weights.h"

enum conv_way { BY_LINES, BY_WINDOWS, BY_IMAGES, BY_COLUMNS, BY_CHANNELS, BY_DEPTHWISE, CONV_WAYS };

struct conv {
    struct array weight; /* [out, k]; freed after packing, used by channels */
    float *packed;       /* by lines, by columns: [groups, out/groups, k] as the kernel reads them;
                            depthwise: with the biases */
    struct gemm *panels; /* by windows, by images: [groups] */
    struct array bias;
    size_t k; /* in/groups * kernel_h * kernel_w */
    size_t groups, stride;
    size_t top, bottom, left, right; /* padding */
    size_t in_channels, in_h, in_w;
    size_t out_channels, out_h, out_w;
    size_t kernel_h, kernel_w;
    enum conv_way way;
    /* An image is padded and, with a stride, dealt out to phases: phase (p, q) has every
     * stride-th number of every stride-th line from (p, q) on. In a phase windows are neighbours.
     */
    size_t phases_h, phases_w;  /* 1 without a stride */
    size_t line_h, line_w;      /* of one phase */
    size_t padded_elements;     /* of one channel group, with what the kernel reads beyond */
    bool direct;                /* the image is read where it is */
    size_t *window;             /* [k] where each tap's first window begins in the padded image */
    struct columns columns;     /* by lines, by columns, by channels; owns panel_offsets */
    struct depthwise depthwise; /* owns places */
};

/* Copies a line of an image. It has a few dozen numbers, for which a call of memcpy costs more than
 * the copying. Returns the end of the copy. */
static inline float *conv_copy_line(float *to, const float *from, size_t count)
{
    enum { STEP = 8 };
    size_t i = 0;
    for (; i + STEP <= count; i += STEP)
        memcpy(to + i, from + i, STEP * sizeof *to);
    for (; i < count; i++)
        to[i] = from[i];
    return to + count;
}

/* Writes the image of one channel group as the product reads it. */
void conv_pad(const struct conv *conv, const float *image, float *to);

/* How many floats of workspace the product of conv->way takes behind a padded image. */
size_t conv_product_floats(const struct conv *conv);

/* The products: one channel group, x and y from where it begins. Of one row; by images of up to
 * conv_images_at_once(), x: [rows, in], y: [rows, out]. */
typedef void conv_product(const struct conv *conv, size_t group, size_t rows, const float *x,
                          float *workspace, float *y);
extern conv_product *const CONV_PRODUCTS[CONV_WAYS];

size_t conv_images_at_once(const struct conv *conv);

/* Depthwise: whether it suits groups of one input channel. Its product is of all groups: x and y
 * are those of the row. It needs no padded image. */
bool conv_depthwise_suits(const struct conv *conv);
MUST_CHECK int conv_depthwise_plan(struct conv *conv, struct error *err);
MUST_CHECK int conv_depthwise_pack(struct conv *conv, struct error *err);
size_t conv_depthwise_packed(const struct conv *conv); /* floats */
size_t conv_depthwise_floats(const struct conv *conv); /* of workspace */
conv_product conv_by_depthwise;

#endif
