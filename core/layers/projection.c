/* A matrix is packed when it is claimed and its pages of the checkpoint are released at once, so
 * that loading never holds all matrices twice. */
#include "core/layers/projection.h"

/* Weights from which on a matrix is shared out even for one vector: to read so many takes longer
 * than to fork. */
static const size_t LARGE = 2 << 20;

/* Packed as the kernel reads it a matrix of one output may be thirty times what the file has. An
 * f32 for each number is its due; the rest is padding. */
static int take_padding(const struct scope *scope, const struct tensor *tensor,
                        const struct gemm *gemm, struct error *err)
{
    size_t due = tensor->elements * sizeof(float);
    if (gemm->bytes <= due || scope_takes(scope, 1, gemm->bytes - due))
        return 0;
    return tensor_error(
        tensor, err, ERROR_INVALID,
        ": packed it takes %zu bytes; a model may take %d MiB that its files do not "
        "hold, of which %zu bytes are left",
        gemm->bytes, MAX_UNSTORED_BYTES >> 20, scope->loading->bytes_left);
}

static struct precision precision_of(const struct scope *scope)
{
    struct precision precision = scope->precision;
    if (scope->sensitive)
        precision_refine(&precision);
    return precision;
}

/* Knows how much it will be before anything is allocated. */
static int pack(struct projection *projection, const struct scope *scope,
                const struct tensor *tensor, size_t n, size_t k, struct error *err)
{
    struct precision precision = precision_of(scope), sizes = precision;
    sizes.sizes_only = true;
    if (gemm_init_rounded(&projection->gemm, &sizes, tensor, n, k, err) != 0 ||
        take_padding(scope, tensor, &projection->gemm, err) != 0)
        return -1;
    return gemm_init_rounded(&projection->gemm, &precision, tensor, n, k, err);
}

int projection_build(struct projection *projection, const struct scope *scope, const char *suffix,
                     size_t n, size_t k, struct error *err)
{
    struct tensor *tensor = tensor_claim(scope, suffix, err);
    if (!tensor)
        return -1;
    n = n ? n : tensor->dims[0];
    struct moed_shape shape = {.rank = 2, .dims = {n, k}};
    if (tensor_expect(tensor, &shape, err) != 0 || pack(projection, scope, tensor, n, k, err) != 0)
        return -1;
    tensor_drop_pages(tensor);
    scope->cost->parameters += tensor->elements;
    scope->cost->active_parameters += tensor->elements;
    scope->cost->weight_bytes += projection->gemm.bytes;
    scope->cost->shared_bytes += projection->gemm.bytes;
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

bool projection_is_large(const struct projection *projection)
{
    return projection->gemm.n * projection->gemm.k >= LARGE;
}

/* A thread that starts late, or is interrupted, leaves its parts to the others. */
enum { PARTS_PER_THREAD = 4 };

size_t projection_parts(const struct moed_team *team)
{
    return team ? PARTS_PER_THREAD * team_size(team) : 1;
}

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
    struct shared_product product = {projection, vectors, projection_parts(team), x, y};
    team_run(team, product.parts, multiply_part, &product);
}

void projection_close(struct projection *projection)
{
    gemm_close(&projection->gemm);
    array_close(&projection->bias);
}
