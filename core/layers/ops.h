/* The ops that a config.json may name. */
#ifndef CORE_OPS_H
#define CORE_OPS_H

#include "core/layers/layer.h"

/* NULL: there is none of that name. */
const struct layer_op *op_find(const char *name);

extern const struct layer_op op_linear;                                 /* linear.c */
extern const struct layer_op op_conv1d, op_conv2d;                      /* conv.c */
extern const struct layer_op op_batch_norm, op_layer_norm, op_rms_norm; /* norm.c */
extern const struct layer_op op_max_pool2d, op_avg_pool2d;              /* pool.c */
extern const struct layer_op op_flatten, op_reshape, op_sum, op_mean;   /* axes.c */
extern const struct layer_op op_select, op_transpose;                   /* axes.c */
extern const struct layer_op op_relu, op_gelu, op_silu, op_tanh, op_sigmoid, op_softmax, op_cube,
    op_scale;                                                                     /* activation.c */
extern const struct layer_op op_residual;                                         /* residual.c */
extern const struct layer_op op_embedding, op_position_embedding, op_class_token; /* embedding.c */
extern const struct layer_op op_glu;                                              /* glu.c */
extern const struct layer_op op_attention;                                        /* attention.c */
extern const struct layer_op op_moe;                                              /* moe.c */

#endif
