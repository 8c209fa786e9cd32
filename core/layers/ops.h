/* The ops that a config.json may name. */
#ifndef CORE_OPS_H
#define CORE_OPS_H

#include "core/layers/layer.h"

/* NULL: there is none of that name. */
const struct layer_op *op_find(const char *name);

extern const struct layer_op op_linear;            /* linear.c */
extern const struct layer_op op_conv1d, op_conv2d; /* conv.c */
extern const struct layer_op op_batch_norm, op_layer_norm, op_rms_norm, op_group_norm,
    op_l2_normalize;                                                               /* norm.c */
extern const struct layer_op op_max_pool2d, op_avg_pool2d, op_adaptive_avg_pool2d; /* pool.c */
extern const struct layer_op op_flatten, op_reshape, op_sum, op_mean;              /* axes.c */
extern const struct layer_op op_select, op_transpose, op_max, op_slice;            /* axes.c */
extern const struct layer_op op_relu, op_gelu, op_silu, op_tanh, op_sigmoid, op_softmax, op_cube,
    op_scale, op_leaky_relu, op_elu, op_prelu, op_softplus, op_mish, op_hardswish, op_hardsigmoid,
    op_relu2, op_relu6, op_clamp, op_exp, op_log, op_sqrt, op_log_softmax;        /* activation.c */
extern const struct layer_op op_add, op_multiply, op_divide, op_concat;           /* join.c */
extern const struct layer_op op_residual;                                         /* residual.c */
extern const struct layer_op op_embedding, op_position_embedding, op_class_token; /* embedding.c */
extern const struct layer_op op_glu;                                              /* glu.c */
extern const struct layer_op op_attention;                                        /* attention.c */
extern const struct layer_op op_short_conv;                                       /* short_conv.c */
extern const struct layer_op op_latent_attention;                                 /* latent.c */
extern const struct layer_op op_moe;                                              /* moe.c */

#endif
