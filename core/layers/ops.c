/* One row for each op; a config names them by `name`. */
#include "core/layers/ops.h"

#include <string.h>

static const struct layer_op *const OPS[] = {
    &op_linear,       &op_conv1d,
    &op_conv2d,       &op_batch_norm,
    &op_layer_norm,   &op_rms_norm,
    &op_max_pool2d,   &op_avg_pool2d,
    &op_flatten,      &op_reshape,
    &op_sum,          &op_mean,
    &op_relu,         &op_gelu,
    &op_silu,         &op_tanh,
    &op_sigmoid,      &op_softmax,
    &op_cube,         &op_scale,
    &op_residual,     &op_moe,
    &op_select,       &op_transpose,
    &op_embedding,    &op_position_embedding,
    &op_class_token,  &op_glu,
    &op_attention,    &op_latent_attention,
    &op_short_conv,   &op_add,
    &op_multiply,     &op_divide,
    &op_concat,       &op_leaky_relu,
    &op_elu,          &op_prelu,
    &op_softplus,     &op_mish,
    &op_hardswish,    &op_hardsigmoid,
    &op_relu2,        &op_relu6,
    &op_clamp,        &op_exp,
    &op_log,          &op_sqrt,
    &op_log_softmax,  &op_group_norm,
    &op_l2_normalize, &op_max,
    &op_slice,        &op_adaptive_avg_pool2d,
};

const struct layer_op *op_find(const char *name)
{
    for (size_t i = 0; i < sizeof OPS / sizeof *OPS; i++)
        if (strcmp(OPS[i]->name, name) == 0)
            return OPS[i];
    return NULL;
}
