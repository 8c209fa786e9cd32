/* A scope says where a part of a model finds its tensors and which cost they are charged to.
 *
 * Parts are nested: the model, a MoE layer, one of its experts, a layer of that expert. Each has a
 * scope, which scope_enter() makes from the outer one and which ends when the part is built. State
 * that all parts share is behind one pointer, so that no copy can become stale. */
#ifndef CORE_SCOPE_H
#define CORE_SCOPE_H

#include "core/dense/gemm.h"
#include "core/layers/cost.h"
#include "core/load/config.h"
#include "core/load/safetensors.h"
#include "core/load/view.h"

/* Nested lists of layers: bounds recursion over an untrusted config. */
enum { MAX_LAYER_DEPTH = 16 };
/* Layers of a model, including those of every expert. A small config.json can describe a million
 * layers in each of 4096 experts, for which there is no memory. */
enum { MAX_LAYERS = 1 << 18 };
/* What a model may take in all that no byte of its files stands for: its layers and experts
 * themselves, tables that they make, padding of packed weights, the counters of its gates. Of
 * Qwen3-235B's shape (94 layers of 128 experts) it is 33 MB, with twice the experts 66. A small
 * config.json can ask for it in every layer. */
enum { MAX_UNSTORED_BYTES = 512 << 20 };
/* "moe.experts.123." and a layer's own name. */
enum { MAX_TENSOR_NAME = 256 };

/* What a scratch must know about a MoE layer to allocate its working memory. */
struct moe_sizes {
    size_t experts;
    size_t items_per_row; /* routed by each gate */
    size_t slots;         /* selections per item, those of all gates together */
    bool weighs_inputs;   /* weights multiply the experts' inputs, not their outputs */
};

/* State that all parts of a model share while it is built. */
struct loading {
    struct safetensors *tensors;
    struct views *views; /* of them, which layers see instead; NULL: layers see the tensors */
    bool headers_only;   /* tensors have no numbers that may be read */
    int format;          /* format_version of the config */
    size_t context;      /* positions of a sequence; 0: rows are independent */
    bool kv_f32;         /* sessions keep keys and values as f32 */
    size_t layers_left;  /* of MAX_LAYERS */
    size_t bytes_left;   /* of MAX_UNSTORED_BYTES */
    /* Each MoE layer appends its own, in order of execution. */
    struct moed_gate_info *gates; /* [gate_count] */
    size_t gate_count;
    struct moe_sizes *moe; /* [moe_count] */
    size_t moe_count;
    size_t position_bytes; /* what a session keeps of a position for all layers so far */
    bool sees_ahead;       /* a layer must be given all positions of a sequence at once */
    size_t kind_count;
    struct moed_kind kinds[MOED_MAX_KINDS]; /* the first without a window */
};

struct scope {
    struct loading *loading;
    struct cost *cost; /* charged for every tensor */
    const char *op;    /* of the layer; NULL outside layers */
    /* Prefix of tensor names: "", "moe.", "moe.gate.", "moe.experts.3.", "moe.experts.3.fc1.". */
    char prefix[MAX_TENSOR_NAME];
    size_t outer_bytes; /* of prefix: the part before the layer's own name */
    int depth;
    size_t categories; /* if the part reads categories, their number; 0: it reads quantities */
    struct precision precision; /* of matrices; those of a gate are as stored */
    bool sensitive;             /* errors of its matrices cost most: precision_refine() */
    bool no_moe; /* gates, experts, inputs and outputs hold no MoE layer of their own */
    const struct moed_shape *operands; /* of the values that a layer joins to its input */
    size_t positions;                  /* of rows of different length; 0: all have the same */
    bool padded; /* the first axis of what the part reads are such positions */
    bool padded_operands;
    bool routed; /* inside a gate or an expert, whose rows are not consecutive rows of a sequence */
};

/* Makes the scope of a part of `outer`, whose tensor names begin with the formatted text and '.'.
 * Refuses names that would be too long, at `node`. */
MUST_CHECK int scope_enter(struct scope *scope, const struct scope *outer, struct config_node *node,
                           struct error *err, const char *format, ...)
    __attribute__((format(printf, 5, 6)));

/* The scope around a layer: that of the list that contains it. */
struct scope scope_around(const struct scope *scope);

/* Takes `count` times `bytes` from what the model may take that no file holds; false: it is more
 * than is left. To be asked before anything of a size that a config chooses is allocated. */
bool scope_takes(const struct scope *scope, size_t count, size_t bytes);

/* The same, with an error at `node` that says what wanted it. */
MUST_CHECK int scope_take(const struct scope *scope, const struct config_node *node,
                          const char *what, size_t count, size_t bytes, struct error *err);

/* Refuses a layer over the rows of a sequence where there is none. */
MUST_CHECK int scope_check_sequence(const struct scope *scope, struct config_node *node,
                                    struct error *err);

#endif
