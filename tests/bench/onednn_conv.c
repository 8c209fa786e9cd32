/* Inputs and outputs are reordered outside the timed run. */
#include "onednn_conv.h"

#include <stdlib.h>

#include "bench.h"
#include "onednn_tools.h"

/* A conv1d is a conv2d of height 1. */
enum { AXES = 4, GROUPED_AXES = AXES + 1 };

struct onednn_conv {
    dnnl_memory_desc_t plain_x, plain_y;
    dnnl_primitive_t primitive;
    dnnl_memory_t x, weights, bias, y;
};

/* [rows, channels, height, width] for rows of [channels, width] or [channels, height, width]. */
static void image_dims(size_t dims[AXES], size_t rows, const struct moed_shape *row)
{
    dims[0] = rows;
    dims[1] = row->dims[0];
    dims[2] = row->rank == 3 ? row->dims[1] : 1;
    dims[3] = row->dims[row->rank - 1];
}

static void copy_in(const dnnl_memory_desc_t *format, const float *numbers, dnnl_memory_t to)
{
    dnnl_memory_t plain = onednn_memory(format, numbers);
    onednn_copy(plain, to);
    onednn_must(dnnl_memory_destroy(plain));
}

struct sizes {
    size_t weights[GROUPED_AXES], in[AXES], out[AXES]; /* weights by group */
    const struct conv_steps *steps;
};

/* oneDNN takes weights of one group without that axis. */
static dnnl_memory_desc_t weights_of(const struct sizes *sizes, bool plain)
{
    return sizes->steps->groups > 1 ? onednn_tensor(GROUPED_AXES, sizes->weights, dnnl_f32,
                                                    plain ? dnnl_abcde : dnnl_format_tag_any)
                                    : onednn_tensor(AXES, sizes->weights + 1, dnnl_f32,
                                                    plain ? dnnl_abcd : dnnl_format_tag_any);
}

static void build(struct onednn_conv *conv, const struct sizes *sizes)
{
    dnnl_dim_t step = (dnnl_dim_t)sizes->steps->stride, pad = (dnnl_dim_t)sizes->steps->padding;
    const dnnl_dims_t strides = {step, step}, pads = {sizes->weights[3] > 1 ? pad : 0, pad};
    const dnnl_memory_desc_t x = onednn_tensor(AXES, sizes->in, dnnl_f32, dnnl_format_tag_any),
                             w = weights_of(sizes, false),
                             b = onednn_tensor(1, sizes->out + 1, dnnl_f32, dnnl_a),
                             y = onednn_tensor(AXES, sizes->out, dnnl_f32, dnnl_format_tag_any);
    dnnl_convolution_desc_t operation;
    dnnl_primitive_desc_t desc;
    onednn_must(dnnl_convolution_forward_desc_init(&operation, dnnl_forward_inference,
                                                   dnnl_convolution_direct, &x, &w, &b, &y, strides,
                                                   pads, pads));
    onednn_must(dnnl_primitive_desc_create(&desc, &operation, NULL, onednn_engine(), NULL));
    onednn_must(dnnl_primitive_create(&conv->primitive, desc));
    conv->x = onednn_memory(dnnl_primitive_desc_query_md(desc, dnnl_query_src_md, 0), NULL);
    conv->weights =
        onednn_memory(dnnl_primitive_desc_query_md(desc, dnnl_query_weights_md, 0), NULL);
    conv->y = onednn_memory(dnnl_primitive_desc_query_md(desc, dnnl_query_dst_md, 0), NULL);
    conv->bias = onednn_memory(&b, NULL);
    onednn_must(dnnl_primitive_desc_destroy(desc));
}

struct onednn_conv *onednn_conv_new(const struct moed_model_info *info,
                                    const struct safetensors *weights,
                                    const struct conv_steps *steps, size_t rows)
{
    const struct tensor *weight = safetensors_find(weights, "conv.weight");
    const struct tensor *bias = safetensors_find(weights, "conv.bias");
    struct sizes sizes = {.weights = {steps->groups, weight->dims[0] / steps->groups,
                                      weight->dims[1], weight->rank == AXES ? weight->dims[2] : 1,
                                      weight->dims[weight->rank - 1]},
                          .steps = steps};
    struct onednn_conv *conv = bench_memory(sizeof *conv);
    image_dims(sizes.in, rows, &info->inputs->shape);
    image_dims(sizes.out, rows, &info->outputs->shape);
    conv->plain_x = onednn_tensor(AXES, sizes.in, dnnl_f32, dnnl_abcd);
    conv->plain_y = onednn_tensor(AXES, sizes.out, dnnl_f32, dnnl_abcd);
    build(conv, &sizes);
    const dnnl_memory_desc_t plain = weights_of(&sizes, true),
                             vector = onednn_tensor(1, bias->dims, dnnl_f32, dnnl_a);
    copy_in(&plain, weight->data, conv->weights);
    copy_in(&vector, bias->data, conv->bias);
    return conv;
}

void onednn_conv_free(struct onednn_conv *conv)
{
    if (!conv)
        return;
    const dnnl_memory_t memories[] = {conv->x, conv->weights, conv->bias, conv->y};
    for (size_t i = 0; i < sizeof memories / sizeof *memories; i++)
        onednn_must(dnnl_memory_destroy(memories[i]));
    onednn_must(dnnl_primitive_destroy(conv->primitive));
    free(conv);
}

void onednn_conv_input(const struct onednn_conv *conv, const float *x)
{
    copy_in(&conv->plain_x, x, conv->x);
}

void onednn_conv_run(const struct onednn_conv *conv)
{
    const dnnl_exec_arg_t arguments[] = {{DNNL_ARG_SRC, conv->x},
                                         {DNNL_ARG_WEIGHTS, conv->weights},
                                         {DNNL_ARG_BIAS, conv->bias},
                                         {DNNL_ARG_DST, conv->y}};
    onednn_execute(conv->primitive, arguments, 4);
}

void onednn_conv_output(const struct onednn_conv *conv, float *y)
{
    dnnl_memory_t plain = onednn_memory(&conv->plain_y, y);
    onednn_copy(conv->y, plain);
    onednn_must(dnnl_memory_destroy(plain));
}
