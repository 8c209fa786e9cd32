/* An inner product of oneDNN 2; see dnnl_linear.h. Weights are offered in the format that the
 * primitive asks for ("any"), as its documentation advises for weights that stay. */
#include "dnnl_linear.h"

#include <stdio.h>
#include <stdlib.h>

#include <dnnl.h>

struct dnnl_linear {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    dnnl_primitive_t product;
    dnnl_memory_t x, weights, y; /* y: the caller's memory, set at each run */
    size_t rows, k;
};

/* Nothing here can fail but for lack of memory or a bug. */
static void must(dnnl_status_t status)
{
    if (status != dnnl_success) {
        fprintf(stderr, "bench: oneDNN failed with status %d\n", (int)status);
        abort();
    }
}

static dnnl_memory_desc_t matrix(size_t rows, size_t columns, dnnl_data_type_t type,
                                 dnnl_format_tag_t tag)
{
    dnnl_memory_desc_t desc;
    const dnnl_dims_t dims = {(dnnl_dim_t)rows, (dnnl_dim_t)columns};
    must(dnnl_memory_desc_init_by_tag(&desc, 2, dims, type, tag));
    return desc;
}

/* Copies row-major floats into `to`, whatever its type and format. */
static void reorder_into(struct dnnl_linear *linear, const float *values, size_t rows,
                         size_t columns, dnnl_memory_t to)
{
    const dnnl_memory_desc_t plain = matrix(rows, columns, dnnl_f32, dnnl_ab), *packed;
    dnnl_memory_t from;
    dnnl_primitive_desc_t desc;
    dnnl_primitive_t reorder;
    must(dnnl_memory_get_memory_desc(to, &packed));
    must(dnnl_memory_create(&from, &plain, linear->engine, (void *)values));
    must(dnnl_reorder_primitive_desc_create(&desc, &plain, linear->engine, packed, linear->engine,
                                            NULL));
    must(dnnl_primitive_create(&reorder, desc));
    const dnnl_exec_arg_t arguments[] = {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}};
    must(dnnl_primitive_execute(reorder, linear->stream, 2, arguments));
    must(dnnl_stream_wait(linear->stream));
    dnnl_primitive_destroy(reorder);
    dnnl_primitive_desc_destroy(desc);
    dnnl_memory_destroy(from);
}

static int make_product(struct dnnl_linear *linear, size_t n, dnnl_data_type_t type)
{
    const dnnl_memory_desc_t x = matrix(linear->rows, linear->k, type, dnnl_ab),
                             weights = matrix(n, linear->k, type, dnnl_format_tag_any),
                             y = matrix(linear->rows, n, dnnl_f32, dnnl_ab);
    dnnl_inner_product_desc_t operation;
    dnnl_primitive_desc_t desc;
    if (dnnl_inner_product_forward_desc_init(&operation, dnnl_forward_inference, &x, &weights, NULL,
                                             &y) != dnnl_success ||
        dnnl_primitive_desc_create(&desc, &operation, NULL, linear->engine, NULL) != dnnl_success)
        return -1;
    must(dnnl_primitive_create(&linear->product, desc));
    must(dnnl_memory_create(&linear->x, &x, linear->engine, DNNL_MEMORY_ALLOCATE));
    must(dnnl_memory_create(&linear->weights,
                            dnnl_primitive_desc_query_md(desc, dnnl_query_weights_md, 0),
                            linear->engine, DNNL_MEMORY_ALLOCATE));
    must(dnnl_memory_create(&linear->y, &y, linear->engine, DNNL_MEMORY_NONE));
    dnnl_primitive_desc_destroy(desc);
    return 0;
}

struct dnnl_linear *dnnl_linear_new(size_t n, size_t k, size_t rows, bool bf16,
                                    const float *weights)
{
    struct dnnl_linear *linear = calloc(1, sizeof *linear);
    if (!linear)
        abort();
    linear->rows = rows;
    linear->k = k;
    must(dnnl_engine_create(&linear->engine, dnnl_cpu, 0));
    must(dnnl_stream_create(&linear->stream, linear->engine, dnnl_stream_default_flags));
    if (make_product(linear, n, bf16 ? dnnl_bf16 : dnnl_f32) != 0) {
        dnnl_linear_free(linear);
        return NULL;
    }
    reorder_into(linear, weights, n, k, linear->weights);
    return linear;
}

void dnnl_linear_free(struct dnnl_linear *linear)
{
    if (!linear)
        return;
    if (linear->product) {
        dnnl_primitive_destroy(linear->product);
        dnnl_memory_destroy(linear->x);
        dnnl_memory_destroy(linear->weights);
        dnnl_memory_destroy(linear->y);
    }
    dnnl_stream_destroy(linear->stream);
    dnnl_engine_destroy(linear->engine);
    free(linear);
}

void dnnl_linear_input(struct dnnl_linear *linear, const float *x)
{
    reorder_into(linear, x, linear->rows, linear->k, linear->x);
}

void dnnl_linear_run(struct dnnl_linear *linear, float *y)
{
    must(dnnl_memory_set_data_handle(linear->y, y));
    const dnnl_exec_arg_t arguments[] = {
        {DNNL_ARG_SRC, linear->x}, {DNNL_ARG_WEIGHTS, linear->weights}, {DNNL_ARG_DST, linear->y}};
    must(dnnl_primitive_execute(linear->product, linear->stream, 3, arguments));
    must(dnnl_stream_wait(linear->stream));
}
