/* One primitive for each number of rows, made on first use. */
#include "onednn_product.h"

#include <stdlib.h>

#include "onednn_tools.h"

/* The product for one number of rows, because oneDNN's primitives have fixed shapes. */
struct sized {
    dnnl_primitive_t primitive; /* NULL: not built yet */
    dnnl_memory_t x, y;         /* point to the caller's numbers, set at each run */
};

struct onednn_product {
    size_t n, k, max_rows;
    dnnl_data_type_t type; /* of x and W */
    bool relu;
    dnnl_memory_desc_t weights;
    struct sized *sized; /* [max_rows + 1] by rows */
};

/* Returns -1 if this processor has no such product. */
static int describe(const struct onednn_product *product, size_t rows,
                    const dnnl_memory_desc_t *weights, dnnl_primitive_desc_t *desc)
{
    const size_t in[] = {rows, product->k}, out[] = {rows, product->n};
    const dnnl_memory_desc_t x = onednn_tensor(2, in, product->type, dnnl_ab),
                             y = onednn_tensor(2, out, dnnl_f32, dnnl_ab);
    dnnl_inner_product_desc_t operation;
    return dnnl_inner_product_forward_desc_init(&operation, dnnl_forward_inference, &x, weights,
                                                NULL, &y) == dnnl_success &&
                   dnnl_primitive_desc_create(desc, &operation,
                                              product->relu ? onednn_then_relu() : NULL,
                                              onednn_engine(), NULL) == dnnl_success
               ? 0
               : -1;
}

struct onednn_product *onednn_product_new(size_t n, size_t k, size_t rows, size_t max_rows,
                                          bool bf16, bool relu)
{
    struct onednn_product *product = calloc(1, sizeof *product);
    dnnl_primitive_desc_t desc;
    if (!product || !(product->sized = calloc(max_rows + 1, sizeof *product->sized)))
        abort();
    product->n = n;
    product->k = k;
    product->max_rows = max_rows;
    product->type = bf16 ? dnnl_bf16 : dnnl_f32;
    product->relu = relu;
    const dnnl_memory_desc_t any =
        onednn_tensor(2, (const size_t[]){n, k}, product->type, dnnl_format_tag_any);
    if (describe(product, rows, &any, &desc) != 0) {
        onednn_product_free(product, NULL);
        return NULL;
    }
    product->weights = *dnnl_primitive_desc_query_md(desc, dnnl_query_weights_md, 0);
    onednn_must(dnnl_primitive_desc_destroy(desc));
    return product;
}

void onednn_product_free(struct onednn_product *product, struct dnnl_memory *weights)
{
    for (size_t rows = 0; rows <= product->max_rows; rows++) {
        const struct sized *sized = &product->sized[rows];
        if (!sized->primitive)
            continue;
        onednn_must(dnnl_primitive_destroy(sized->primitive));
        onednn_must(dnnl_memory_destroy(sized->x));
        onednn_must(dnnl_memory_destroy(sized->y));
    }
    if (weights)
        onednn_must(dnnl_memory_destroy(weights));
    free(product->sized);
    free(product);
}

struct dnnl_memory *onednn_product_pack(const struct onednn_product *product, const float *weights)
{
    const dnnl_memory_desc_t desc =
        onednn_tensor(2, (const size_t[]){product->n, product->k}, dnnl_f32, dnnl_ab);
    dnnl_memory_t plain = onednn_memory(&desc, weights),
                  packed = onednn_memory(&product->weights, NULL);
    onednn_copy(plain, packed);
    onednn_must(dnnl_memory_destroy(plain));
    return packed;
}

static void build(struct onednn_product *product, size_t rows, const void *x, float *y)
{
    struct sized *sized = &product->sized[rows];
    dnnl_primitive_desc_t desc;
    onednn_must(describe(product, rows, &product->weights, &desc) == 0 ? dnnl_success
                                                                       : dnnl_unimplemented);
    onednn_must(dnnl_primitive_create(&sized->primitive, desc));
    sized->x = onednn_memory(dnnl_primitive_desc_query_md(desc, dnnl_query_src_md, 0), x);
    sized->y = onednn_memory(dnnl_primitive_desc_query_md(desc, dnnl_query_dst_md, 0), y);
    onednn_must(dnnl_primitive_desc_destroy(desc));
}

void onednn_product_run(struct onednn_product *product, struct dnnl_memory *weights, size_t rows,
                        const void *x, float *y)
{
    const struct sized *sized = &product->sized[rows];
    if (!sized->primitive)
        build(product, rows, x, y);
    onednn_must(dnnl_memory_set_data_handle(sized->x, (void *)x));
    onednn_must(dnnl_memory_set_data_handle(sized->y, y));
    const dnnl_exec_arg_t arguments[] = {
        {DNNL_ARG_SRC, sized->x}, {DNNL_ARG_WEIGHTS, weights}, {DNNL_ARG_DST, sized->y}};
    onednn_execute(sized->primitive, arguments, 3);
}
