/* glu: y = activation(x Wg^T + bg) * (x Wu^T + bu) over the last axis; gate.weight and up.weight
 * [out, in], biases if the tensors are there; with limits and shifts as GPT-OSS has them (Shazeer
 * 2020, "GLU Variants Improve Transformer"). */
#include "core/dense/math.h"
#include "core/layers/ops.h"
#include "core/layers/projection.h"
#include "core/memory.h"

struct glu {
    struct projection gate, up;
    size_t vectors; /* per row: the product of the axes before the last */
    size_t up_place;
    int activation; /* of GATES */
    /* gate = min(g, limit), up = clamp(u, -limit, limit) + shift, silu(gate, alpha) * up. */
    bool bent; /* any of them is given */
    float limit, alpha, shift;
};

/* y = activation(y) * up: one loop per activation, without a branch inside. */
typedef void gate_up(size_t count, const float *restrict up, float *restrict y);

#define GATE_UP(name, activation)                                                                  \
    VECTORIZED static void name##_up(size_t count, const float *restrict up, float *restrict y)    \
    {                                                                                              \
        for (size_t i = 0; i < count; i++)                                                         \
            y[i] = activation(y[i]) * up[i];                                                       \
    }

GATE_UP(silu, silu)
GATE_UP(gelu, gelu_erf)
GATE_UP(gelu_tanh, gelu_tanh)
GATE_UP(sigmoid, sigmoid)
GATE_UP(relu, relu)

static const char *const NAMES[] = {"silu", "gelu", "gelu_tanh", "sigmoid", "relu", NULL};
static gate_up *const GATES[] = {silu_up, gelu_up, gelu_tanh_up, sigmoid_up, relu_up};

static void bend(const struct glu *glu, size_t count, float *gate, float *up)
{
    for (size_t i = 0; i < count; i++) {
        gate[i] = gate[i] > glu->limit ? glu->limit : gate[i];
        up[i] = clamp(up[i], -glu->limit, glu->limit) + glu->shift;
    }
}

/* v * sigmoid(alpha * v) */
VECTORIZED static void sharp_silu_up(float alpha, size_t count, const float *restrict up,
                                     float *restrict y)
{
    for (size_t i = 0; i < count; i++)
        y[i] = times_sigmoid(y[i], alpha * y[i]) * up[i];
}

static int read_bends(struct glu *glu, const struct scope *scope, struct config_node *node,
                      struct error *err)
{
    static const double one = 1, zero = 0;
    double limit = INFINITY, alpha, shift;
    glu->bent = config_has(node, "limit") || config_has(node, "alpha") || config_has(node, "shift");
    if (config_since(node, 3, scope->loading->format, KEYS("limit", "alpha", "shift"), err) != 0 ||
        (config_has(node, "limit") && config_real(node, "limit", NULL, &limit, err) != 0) ||
        config_real(node, "alpha", &one, &alpha, err) != 0 ||
        config_real(node, "shift", &zero, &shift, err) != 0)
        return -1;
    if (limit <= 0)
        return config_error(node, "limit", err, "expected a number above 0");
    if (config_has(node, "alpha") && glu->activation != 0)
        return config_error(node, "alpha", err, "goes with activation \"silu\" only");
    glu->limit = (float)limit;
    glu->alpha = (float)alpha;
    glu->shift = (float)shift;
    return 0;
}

static int glu_build(struct layer *layer, const struct scope *scope, struct config_node *node,
                     struct error *err)
{
    struct glu *glu = layer->state = xcalloc(1, sizeof *glu);
    struct scope own = *scope;
    own.sensitive = false; /* the most of a model's weights, whose errors cost least */
    if (layer->in.rank == 0)
        return config_error(node, NULL, err, "glu needs at least one axis");
    struct moed_shape out = layer->in;
    size_t *last = &out.dims[out.rank - 1];
    if (config_choice(node, "activation", NAMES, 0, &glu->activation, err) != 0 ||
        read_bends(glu, scope, node, err) != 0 ||
        projection_build(&glu->gate, &own, "gate.weight", 0, *last, err) != 0 ||
        projection_build_bias(&glu->gate, &own, "gate.bias", err) != 0 ||
        projection_build(&glu->up, &own, "up.weight", glu->gate.gemm.n, *last, err) != 0 ||
        projection_build_bias(&glu->up, &own, "up.bias", err) != 0)
        return -1;
    glu->vectors = layer->in_elements / *last;
    *last = glu->gate.gemm.n;
    layer->cost.macs = 2 * layer->in_elements * *last;
    if (layer_set_out(layer, node, &out, err) != 0)
        return -1;
    layer->collective = projection_is_large(&glu->gate);
    glu->up_place = plan_floats(&layer->plan, layer->out_elements);
    return 0;
}

/* y: the gate's outputs, and what becomes of them. */
static void multiply_gated(const struct glu *glu, size_t count, float *up, float *y)
{
    if (glu->bent)
        bend(glu, count, y, up);
    if (glu->alpha != 1.0f)
        sharp_silu_up(glu->alpha, count, up, y);
    else
        GATES[glu->activation](count, up, y);
}

struct glu_job {
    const struct glu *glu;
    size_t vectors, parts;
    const float *x;
    float *up, *y;
};

/* Some outputs of all vectors. */
static void glu_part(void *context, size_t index, unsigned worker)
{
    const struct glu_job *job = context;
    const struct glu *glu = job->glu;
    size_t n = glu->gate.gemm.n;
    struct columns_of columns = gemm_columns(&glu->gate.gemm, index, job->parts);
    (void)worker;
    const struct gemm_product both[2] = {{&glu->gate.gemm, glu->gate.bias.values, job->y},
                                         {&glu->up.gemm, glu->up.bias.values, job->up}};
    if (columns.first == columns.end)
        return;
    gemm_part_of_both(both, &columns, job->x, job->vectors);
    for (size_t at = columns.first; at < job->vectors * n; at += n)
        multiply_gated(glu, columns.end - columns.first, job->up + at, job->y + at);
}

static void glu_forward(const struct layer *layer, const struct run *run, size_t rows,
                        const float *x, float *y)
{
    const struct glu *glu = layer->state;
    struct moed_team *team = team_for(run->team, rows * layer->cost.macs);
    struct glu_job job = {.glu = glu,
                          .vectors = rows * glu->vectors,
                          .parts = projection_parts(team),
                          .x = x,
                          .up = run_floats(run, glu->up_place, rows),
                          .y = y};
    team_run(team, job.parts, glu_part, &job);
}

static void glu_free(struct layer *layer)
{
    struct glu *glu = layer->state;
    if (!glu)
        return;
    projection_close(&glu->gate);
    projection_close(&glu->up);
}

const struct layer_op op_glu = {.name = "glu",
                                .padding = PADDING_LAST_AXIS,
                                .format = 2,
                                .build = glu_build,
                                .forward = glu_forward,
                                .free = glu_free};
