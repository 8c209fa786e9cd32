/* A matrix is packed when it is claimed and its pages of the checkpoint are released at once, so
 * that loading never holds all matrices twice. */
#include "core/layers/projection.h"

int projection_build(struct projection *projection, const struct scope *scope, const char *suffix,
                     size_t n, size_t k, struct error *err)
{
    struct tensor *tensor = tensor_claim(scope, suffix, err);
    if (!tensor)
        return -1;
    n = n ? n : tensor->dims[0];
    struct moed_shape shape = {.rank = 2, .dims = {n, k}};
    if (tensor_expect(tensor, &shape, err) != 0 ||
        (scope->int8 ? gemm_init_int8 : gemm_init)(&projection->gemm, tensor, n, k, err) != 0)
        return -1;
    tensor_drop_pages(tensor);
    scope->cost->parameters += tensor->elements;
    scope->cost->active_parameters += tensor->elements;
    scope->cost->weight_bytes += projection->gemm.bytes;
    return 0;
}

int projection_build_bias(struct projection *projection, const struct scope *scope,
                          const char *suffix, struct error *err)
{
    struct moed_shape shape = {.rank = 1, .dims = {projection->gemm.n}};
    return array_build_optional(&projection->bias, scope, suffix, &shape, err);
}

void projection_forward(const struct projection *projection, size_t vectors, const float *x,
                        float *y)
{
    gemm_rows(&projection->gemm, x, vectors, projection->bias.values, y);
}

void projection_close(struct projection *projection)
{
    gemm_close(&projection->gemm);
    array_close(&projection->bias);
}
