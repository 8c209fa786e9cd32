/* Matrices of layers; see projection.h. */
#include "projection.h"

int projection_build(struct projection *projection, struct layer *layer, const struct build *build,
                     const char *weight, const char *bias, size_t n, size_t k, struct error *err)
{
    struct tensor *tensor = tensor_claim(layer, build, weight, err);
    if (!tensor)
        return -1;
    n = n ? n : tensor->dims[0];
    if (tensor_expect(tensor, (size_t[]){n, k}, 2, err) != 0 ||
        gemm_init(&projection->gemm, tensor, n, k, err) != 0)
        return -1;
    tensor_drop_pages(tensor);
    layer->parameters += tensor->elements;
    layer->active_parameters += tensor->elements;
    layer->weight_bytes += projection->gemm.bytes;
    return bias ? array_build(&projection->bias, layer, build, bias, &n, 1, false, err) : 0;
}

struct product {
    const struct projection *projection;
    size_t vectors, parts;
    const float *x;
    float *y;
};

static void part_task(void *context, size_t index, unsigned worker)
{
    (void)worker;
    const struct product *product = context;
    const struct projection *projection = product->projection;
    gemm_columns(&projection->gemm, product->x, product->vectors, projection->bias.values,
                 product->y, index, product->parts);
}

void projection_forward(const struct projection *projection, const struct run *run, size_t vectors,
                        const float *x, float *y)
{
    const struct gemm *gemm = &projection->gemm;
    struct product product = {projection, vectors, team_size(run->team), x, y};
    if ((uint64_t)vectors * gemm->n * gemm->k < MIN_FORK_MACS)
        product.parts = 1;
    team_run(run->team, product.parts, part_task, &product);
}

void projection_close(struct projection *projection)
{
    gemm_close(&projection->gemm);
    array_close(&projection->bias);
}
