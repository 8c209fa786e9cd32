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

/* A product whose outputs are shared out: weights are what takes time to read if vectors are few,
 * and every thread reads its own. */
struct shared_product {
    const struct projection *projection;
    size_t vectors, parts;
    const float *x;
    float *y;
};

static void multiply_part(void *context, size_t index, unsigned worker)
{
    const struct shared_product *product = context;
    const struct projection *projection = product->projection;
    struct columns_of columns = gemm_columns(&projection->gemm, index, product->parts);
    (void)worker;
    if (columns.first < columns.end)
        gemm_part(&projection->gemm, &columns, product->x, product->vectors,
                  projection->bias.values, product->y);
}

void projection_share(const struct projection *projection, struct moed_team *team, size_t vectors,
                      const float *x, float *y)
{
    team = team_for(team, (uint64_t)vectors * projection->gemm.n * projection->gemm.k);
    struct shared_product product = {projection, vectors, team_size(team), x, y};
    team_run(team, product.parts, multiply_part, &product);
}

void projection_close(struct projection *projection)
{
    gemm_close(&projection->gemm);
    array_close(&projection->bias);
}
