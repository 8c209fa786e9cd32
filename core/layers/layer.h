/* Layers: what every op has in common. Private to core/.
 *
 * A layer is one op with its weights, bound at load: `build` reads the op's keys, infers the shape
 * of its output, claims its tensors; `forward` maps rows of the input to rows of the output. Layers
 * are immutable after build; everything a forward changes lives in `struct run`.
 *
 * Adding an op: write its file (build, forward, free), declare the `struct layer_op` at the end of
 * this header, add its row to the table in layer.c. */
#ifndef CORE_LAYER_H
#define CORE_LAYER_H

#include "core/dense/gemm.h"
#include "core/dense/team.h"
#include "core/load/config.h"
#include "core/load/safetensors.h"
#include "core/moed.h"

/* A row of one activation: 64 M numbers (256 MB) is beyond any served layer, and stops a shape of
 * 10^18 before it is multiplied into an allocation. */
enum { MAX_ROW_ELEMENTS = 1 << 26 };
/* Lists of layers inside lists of layers: bounds recursion over an untrusted config. */
enum { MAX_LAYER_DEPTH = 16 };
/* Layers of a model, those of every expert counted: some megabytes of them. A list of a million
 * layers in each of 4096 experts fits a small config.json and no memory. */
enum { MAX_LAYERS = 1 << 18 };
/* "moe.experts.123." and a layer's own name. */
enum { MAX_TENSOR_NAME = 256 };

struct layer;
struct routing;
struct dispatch;

/* What a forward needs to know of a MoE layer to give it working memory. */
struct moe_sizes {
    size_t experts;
    size_t items_per_row; /* routed by each gate */
    size_t slots;         /* selections per item, those of all gates together */
};

/* While loading: where tensors come from and which part of the model is being built. */
struct build {
    struct safetensors *tensors;
    char prefix[MAX_TENSOR_NAME]; /* of tensor names: "", "moe.gate.", "moe.experts.3." */
    int format;                   /* format_version of the config */
    int depth;
    size_t *layers_left; /* of MAX_LAYERS, for all parts of the model together */
    size_t categories;   /* of the integers that the next layer reads; 0: it reads quantities */
    bool int8;           /* matrices in 8 bits; never those of a gate */
    bool no_moe;         /* gates, experts, inputs and outputs hold no MoE layer of their own */
    /* Grown by each MoE layer in order of execution. */
    struct moed_gate_info *gates; /* [gate_count] */
    size_t gate_count;
    struct moe_sizes *moe; /* [moe_count] */
    size_t moe_count;
};

/* While running: one worker's view of a forward pass. Copied by value and narrowed on the way down.
 */
struct run {
    struct moed_team *team;        /* NULL inside a task: tasks do not fork again */
    const struct moed_span *spans; /* [span_count] whose rows the batch holds, in order */
    size_t span_count;
    float *arena;      /* row-linear scratch: scratch_per_row floats for every row of this call */
    float *workspaces; /* [threads, workspace_stride] */
    size_t workspace_stride;
    unsigned worker;             /* whose workspace a layer may use */
    struct routing *routing;     /* of every gate of the model, by its index */
    struct dispatch *dispatches; /* of every MoE layer of the model, by its index */
};

/* `workspace` floats that only this worker touches; contents are undefined. */
static inline float *run_workspace(const struct run *run)
{
    return run->workspaces + run->worker * run->workspace_stride;
}

struct layer_op {
    const char *name;
    int format;    /* the format_version that it came with; 0 and 1: the first */
    bool in_place; /* forward may be called with y == x */
    /* Takes the integers of an input with categories: x is [rows, in] of int32_t. Only the first
     * layer of such an input can. */
    bool reads_integers;
    /* Reads the op's keys from `node` (name, in and op are set), sets out and the counts below. */
    int (*build)(struct layer *layer, struct build *build, struct config_node *node,
                 struct error *err);
    /* x: [rows, in], y: [rows, out]. */
    void (*forward)(const struct layer *layer, const struct run *run, size_t rows, const float *x,
                    float *y);
    void (*free)(struct layer *layer); /* NULL: nothing but `state` to free */
    /* The layers inside: index 0, 1, ... with the role each list plays; NULL ends. NULL: none. */
    const struct chain *(*child)(const struct layer *layer, size_t index, const char **role);
};

struct layer {
    const struct layer_op *op;
    char *name; /* "" when absent */
    struct moed_shape in, out;
    size_t in_elements, out_elements;
    /* Whether forward shares its rows out to run->team by itself (a MoE layer, or what holds one);
     * every other layer works on any run of rows alone. */
    bool collective;
    size_t scratch_per_row; /* floats of run->arena needed for each row */
    size_t workspace;       /* floats of a worker's workspace needed */
    /* Everything inside included; active: what one row reads and multiplies. */
    uint64_t parameters, active_parameters, macs, weight_bytes;
    void *state; /* the op's own; malloc'ed */
};

static inline size_t max_size(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* A list of layers run one after the other. */
struct chain {
    struct layer *layers;
    size_t count;
    struct moed_shape in, out;
    size_t in_elements, out_elements, max_elements;
    bool collective;
    size_t task_scratch_per_row; /* floats of arena for each row of a task; see chain_forward */
    size_t scratch_per_row, workspace;
    uint64_t parameters, active_parameters, macs, weight_bytes;
};

/* Builds node[key], a list of layers, for rows of shape `in`. On error nothing is left to close. */
int chain_build(struct chain *chain, struct build *build, struct config_node *node, const char *key,
                const struct moed_shape *in, struct error *err);
void chain_close(struct chain *chain);

/* Runs layers [from, to) over x: [rows, in of `from`] into y: [rows, out of `to - 1`]; from == to
 * copies. With a team, layers that treat rows alike share the rows out among its threads. */
void chain_forward(const struct chain *chain, size_t from, size_t to, const struct run *run,
                   size_t rows, const float *x, float *y);

/* Index of the layer called `name`, or chain->count. */
size_t chain_find(const struct chain *chain, const char *name);

/* A weight as f32: the mapping itself when it is F32 and aligned, else a converted copy. */
struct array {
    const float *values; /* NULL: absent */
    float *owned;
    size_t count;
};

/* Claims the tensor <prefix><layer>.<suffix>. `rank` sizes are checked. `required` false: absent is
 * fine and leaves array->values NULL. Counts parameters and bytes on the layer. */
int array_build(struct array *array, struct layer *layer, const struct build *build,
                const char *suffix, const size_t *dims, size_t rank, bool required,
                struct error *err);
void array_close(struct array *array);

/* Looks at <prefix><layer>.<suffix> without claiming it; NULL when there is none. */
const struct tensor *tensor_peek(const struct layer *layer, const struct build *build,
                                 const char *suffix);

/* Claims a tensor without converting it, for weights that will be packed; NULL with an error. */
struct tensor *tensor_claim(const struct layer *layer, const struct build *build,
                            const char *suffix, struct error *err);
int tensor_expect(const struct tensor *tensor, const size_t *dims, size_t rank, struct error *err);

/* Refuses `key`, if it is there, in a config of an older format than 2. */
int format_2_key(const struct build *build, struct config_node *node, const char *key,
                 struct error *err);

/* Letters, digits, '_', '-' and '.', at most 64: names become tensor names, metric labels and parts
 * of output names. */
bool name_is_valid(const char *name);

/* Sets layer->out and out_elements, refusing shapes beyond MAX_ROW_ELEMENTS. */
int layer_set_out(struct layer *layer, const struct config_node *node,
                  const struct moed_shape *shape, struct error *err);

/* "[1, 28, 28]" for messages. Returns `text`. */
enum { SHAPE_TEXT_BYTES = 128 };
const char *shape_text(const struct moed_shape *shape, char text[SHAPE_TEXT_BYTES]);
bool shape_equal(const struct moed_shape *a, const struct moed_shape *b);

extern const struct layer_op op_linear;                                 /* linear.c */
extern const struct layer_op op_conv1d, op_conv2d;                      /* conv.c */
extern const struct layer_op op_batch_norm, op_layer_norm, op_rms_norm; /* norm.c */
extern const struct layer_op op_max_pool2d, op_avg_pool2d;              /* pool.c */
extern const struct layer_op op_flatten, op_reshape, op_sum, op_mean;   /* shape.c */
extern const struct layer_op op_relu, op_gelu, op_silu, op_tanh, op_sigmoid, op_softmax, op_cube,
    op_scale;                                                                     /* activation.c */
extern const struct layer_op op_residual;                                         /* residual.c */
extern const struct layer_op op_select, op_transpose;                             /* shape.c */
extern const struct layer_op op_embedding, op_position_embedding, op_class_token; /* embedding.c */
extern const struct layer_op op_glu;                                              /* glu.c */
extern const struct layer_op op_attention;                                        /* attention.c */
extern const struct layer_op op_moe;                                              /* moe.c */

#endif
