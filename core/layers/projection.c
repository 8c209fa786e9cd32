/* Matrices of layers; see projection.h. */
#include "core/layers/projection.h"

int projection_build(struct projection *projection, struct layer *layer, const struct build *build,
                     const char *weight, const char *bias, size_t n, size_t k, struct error *err)
{
    struct tensor *tensor = tensor_claim(layer, build, weight, err);
    if (!tensor)
        return -1;
    n = n ? n : tensor->dims[0];
    if (tensor_expect(tensor, (size_t[]){n, k}, 2, err) != 0 ||
        (build->int8 ? gemm_init_int8 : gemm_init)(&projection->gemm, tensor, n, k, err) != 0)
        return -1;
    tensor_drop_pages(tensor);
    layer->parameters += tensor->elements;
    layer->active_parameters += tensor->elements;
    layer->weight_bytes += projection->gemm.bytes;
    return bias ? array_build(&projection->bias, layer, build, bias, &n, 1, false, err) : 0;
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
