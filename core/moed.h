/* Public boundary of the engine: checkpoint -> model -> forward.
 *
 * A `moed_model` is a loaded checkpoint: immutable, so any number of threads may use one. A
 * `moed_scratch` is the mutable side: the buffers of one forward pass at a time. Nothing behind
 * this header knows HTTP, an event loop or a wire format, and nothing in front of it sees a weight.
 *
 *     struct error err = ERROR_INIT;
 *     struct moed_model *model = moed_model_load("deploy/models/fashion-mnist", NULL, &err);
 *     struct moed_scratch_options options = {.max_rows = 64, .threads = 1};
 *     struct moed_scratch *scratch = moed_scratch_new(model, &options, &err);
 *     struct moed_batch batch = {spans, span_count, inputs, outputs};
 *     moed_forward(model, scratch, NULL, &batch);
 *     const struct moed_routing *routing = moed_routing(scratch, 0);
 *     moed_scratch_free(scratch);
 *     moed_model_free(model);
 *
 * A *row* is the unit of work: one sample. Every tensor at this boundary is row-major, with the
 * rows as its first axis; numbers are f32, categories int32_t. A model has one or more MoE layers;
 * each routes `items_per_row` items of every row (1 unless the layer works on positions).
 */
#ifndef MOED_H
#define MOED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"

/* Axes of one row: deeper tensors than any layer needs, small enough to live on the stack. */
enum { MOED_MAX_RANK = 6 };

/* Of every element of an input or an output. */
enum { MOED_ELEMENT_BYTES = 4 };

struct moed_shape {
    size_t rank;
    size_t dims[MOED_MAX_RANK]; /* of one row: without the batch axis */
};

size_t moed_shape_elements(const struct moed_shape *shape);

struct moed_tensor_info {
    const char *name;
    struct moed_shape shape;
    size_t elements;    /* per row */
    size_t categories;  /* inputs: the values are integers from 0 to this - 1; 0: any numbers */
    size_t label_count; /* outputs: names of the last axis; 0 when the checkpoint has none */
    const char *const *labels;
};

/* How a gate routed known-good data when the model was trained, as the checkpoint has it. Lists are
 * [experts]; only the proportions within one matter. */
struct moed_routing_reference {
    uint64_t rows;
    double *share;       /* of the selections */
    double *weight;      /* of the absolute combine weights; NULL: not given */
    double *probability; /* mean of the gate's distribution; NULL: not given */
};

/* A gate: the one of a MoE layer, or one of several that choose among the layer's experts. */
struct moed_gate_info {
    const char *name;            /* the layer's, or "<layer>.<gate>"; unique in the model */
    size_t experts;              /* that it chooses among */
    const int32_t *expert_index; /* [experts] their indices in the layer; NULL: 0, 1, 2, ... */
    size_t top_k;                /* experts that serve one routed item; == experts when dense */
    bool limited;                /* experts have a capacity: items may be dropped */
    bool signed_weights;         /* combine weights may be negative */
    size_t items_per_row;        /* routed items per row */
    struct moed_routing_reference *reference; /* NULL: the checkpoint has none */
};

/* Everything a front end may know of a model. Borrowed: lives as long as the model. */
struct moed_model_info {
    const char *description; /* "" when the checkpoint has none */
    size_t input_count;
    const struct moed_tensor_info *inputs;
    size_t output_count;
    const struct moed_tensor_info *outputs;
    size_t gate_count; /* as many as MoE layers, or more */
    const struct moed_gate_info *gates;
    uint64_t parameters;            /* stored numbers */
    uint64_t active_parameters;     /* read for one row: unselected experts left out */
    uint64_t macs_per_row;          /* multiply-accumulates, unselected experts left out */
    uint64_t weight_bytes;          /* resident weights: mapped, converted or packed */
    uint64_t scratch_bytes_per_row; /* what moed_scratch_new allocates per row */
    /* What a session keeps of a sequence, and of every position of it. Both 0: the model looks at
     * rows alone; else every span of a forward needs a session. */
    uint64_t session_bytes, position_bytes;
};

struct moed_model;
struct moed_scratch;
struct moed_session;
struct moed_team;

/* How a model keeps the matrices of its linear, glu and attention layers. */
enum moed_weights {
    MOED_WEIGHTS_STORED, /* in the precision of the checkpoint */
    /* In 8 bits with one scale per output: less memory to read, and answers that differ a little
     * (core/dense/gemm.h). Gates keep their stored precision, so that they route the same input as
     * before. */
    MOED_WEIGHTS_INT8,
};

struct moed_load_options {
    enum moed_weights weights;
};

/* Loads a checkpoint directory (core/CHECKPOINT.md). `options` NULL: every member is 0. The
 * directory is untrusted: every size, offset, shape and name is checked, and an error names the
 * file and the tensor or the JSON path. Returns NULL on error. */
MUST_CHECK struct moed_model *moed_model_load(const char *directory,
                                              const struct moed_load_options *options,
                                              struct error *err);
void moed_model_free(struct moed_model *model);

const struct moed_model_info *moed_model_info(const struct moed_model *model);

/* One line of a model's architecture, outermost layers first. */
struct moed_layer_info {
    int depth; /* 0 for the model's own layers, +1 inside residual, gate, experts */
    /* Of the first layer of such a part: "gate", "experts", "shared", "residual", "input" or
     * "output"; "" for the others. */
    const char *role;
    const char *part; /* which input, output or gate of several; "" where there is one */
    const char *op;   /* "linear", "moe", ... */
    const char *name; /* "" for a layer without tensors */
    struct moed_shape in, out;
    uint64_t parameters; /* of this layer and all inside it; below `experts`: of one expert */
    const struct moed_gate_info *gates; /* [gate_count] its gates; NULL unless op is "moe" */
    size_t gate_count;
};

/* Calls `visit` for every layer in order of execution; the first expert stands for all. */
void moed_model_visit(const struct moed_model *model,
                      void (*visit)(const struct moed_layer_info *layer, void *context),
                      void *context);

/* A team of `threads` compute threads, the caller's included, that share one forward pass. A team
 * serves one forward at a time. threads == 1 starts no thread. */
struct moed_team *moed_team_new(unsigned threads);
void moed_team_free(struct moed_team *team);

struct moed_scratch_options {
    size_t max_rows;    /* of one forward */
    unsigned threads;   /* of the largest team that runs one */
    bool distributions; /* keep every gate's distribution, which statistics need */
};

/* The buffers of one forward at a time: the only allocation of the forward path. NULL when shapes
 * and rows multiply to more memory than any served model needs. */
MUST_CHECK struct moed_scratch *moed_scratch_new(const struct moed_model *model,
                                                 const struct moed_scratch_options *options,
                                                 struct error *err);
void moed_scratch_free(struct moed_scratch *scratch);

/* Consecutive rows of a batch that belong together: those of one request, or the next positions of
 * one sequence, which see what its session keeps of the earlier ones. */
struct moed_span {
    size_t rows;                  /* >= 1 */
    size_t position;              /* of the first row: moed_session_length(); 0 without a session */
    struct moed_session *session; /* in no other span of the batch; NULL: none */
};

/* The rows of one forward: those of the first span, of the second, ... All memory is the caller's.
 */
struct moed_batch {
    const struct moed_span *spans;
    size_t span_count;         /* >= 1 */
    const void *const *inputs; /* [input_count] [rows, elements] raw values: int32_t of an input
                                  of categories, else f32 */
    float *const *outputs;     /* [output_count] [rows, elements] */
};

/* The memory of one sequence of up to `max_positions` rows, in one allocation. Used by one forward
 * at a time, on any thread, with any scratch of `model`, which must outlive it. NULL when it is
 * more than any served sequence needs, or more than there is. */
MUST_CHECK struct moed_session *moed_session_new(const struct moed_model *model,
                                                 size_t max_positions, struct error *err);
void moed_session_free(struct moed_session *session);

/* The positions it has seen. */
size_t moed_session_length(const struct moed_session *session);

/* Forgets the positions from `length` on, which is at most moed_session_length(). A model with
 * session_bytes cannot go back half the way: there it is 0, or changes nothing. */
void moed_session_truncate(struct moed_session *session, size_t length);

/* Runs 1..max_rows rows through the model on `team` (borrowed for the call; NULL: the calling
 * thread alone), which must not be larger than the scratch was made for. Preprocessing is part of
 * the model. Cannot fail: everything that could go wrong was refused at load. A row's outputs and
 * routing do not depend on the other rows of the batch, where the dense-algebra backend allows it
 * (core/dense/gemm.h); experts with a capacity make them depend on the rows of the same span, and
 * sessions on the earlier rows of the sequence, however those were cut into spans. */
void moed_forward(const struct moed_model *model, struct moed_scratch *scratch,
                  struct moed_team *team, const struct moed_batch *batch);

/* What one gate decided in the last forward, item by item: the very arrays that steered execution.
 * Borrowed: valid until the scratch's next forward. moed_gate_counts_count() counts any of them. */
struct moed_routing {
    size_t items; /* rows * items_per_row */
    size_t experts;
    size_t top_k;
    const int32_t *expert; /* [items, top_k] best first, the layer's indices; -1: dropped */
    const int32_t *choice; /* [items, top_k] the same before any was dropped, the gate's indices */
    const float *weight;   /* [items, top_k] combine weights; 0: dropped */
    /* NULL unless the scratch keeps distributions. p is the gate's distribution over ALL experts,
     * before the choice. Finite, whatever the input. */
    const float *probability; /* [items, experts] p */
    const float *entropy;     /* [items] -sum_i p_i log2 p_i, in bits */
    const float *margin;      /* [items] p(1st) - p(2nd) */
};

/* Of the gate info->gates[index]. */
const struct moed_routing *moed_routing(const struct moed_scratch *scratch, size_t index);

/* The matrix kernel in use, for logs and benchmarks: "avx512", "avx2", "neon", "generic" or
 * "openblas". The environment variable MOED_KERNEL chooses; what this machine cannot run gives
 * "generic". */
const char *moed_kernel_name(void);

/* -1 with an error when MOED_KERNEL names a kernel that does not exist or cannot run here. */
MUST_CHECK int moed_kernel_check(struct error *err);

#endif
