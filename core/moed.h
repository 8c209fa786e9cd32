/* Public boundary of the engine: checkpoint -> model -> forward.
 *
 * A `moed_model` is a loaded checkpoint: immutable, so any number of threads may use one. A
 * `moed_scratch` is the mutable side: the buffers of one forward pass at a time. Code behind
 * this header knows no HTTP, event loop or wire format, and code in front of it sees no weight.
 *
 *     struct error err = ERROR_INIT;
 *     struct moed_model *model = moed_model_load("deploy/models/fashion-mnist", NULL, &err);
 *     struct moed_scratch_options options = {.max_rows = 64, .threads = 1};
 *     struct moed_scratch *scratch = moed_scratch_new(model, &options, &err);
 *     struct moed_batch batch = {spans, span_count, inputs, outputs, NULL};
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

/* Axes of one row: more than any layer needs, few enough to live on the stack. */
enum { MOED_MAX_RANK = 6 };

/* Size of one element of an input or an output. */
enum { MOED_ELEMENT_BYTES = 4 };

struct moed_shape {
    size_t rank;
    size_t dims[MOED_MAX_RANK]; /* of one row: without the batch axis */
};

size_t moed_shape_elements(const struct moed_shape *shape);

struct moed_tensor_info {
    const char *name;
    struct moed_shape shape;
    size_t elements;   /* per row */
    size_t categories; /* inputs: the values are integers from 0 to this - 1; 0: any numbers */
    const char *const *words; /* inputs: [categories] what clients may call them; NULL: none */
    int64_t unknown;          /* inputs of categories: what other values become; -1: refused */
    bool has_missing;         /* inputs: */
    double missing;           /* what stands for a value that is not known */
    const char *length; /* inputs: the name of the input that says how many entries of each row's
                           first axis are no padding; NULL: all */
    size_t label_count; /* outputs: names along the last axis; 0 if the checkpoint has none */
    const char *const *labels;
};

/* How a gate routed known-good data when the model was trained, as stored in the checkpoint. Lists
 * are [experts]; only the proportions within a list matter. */
struct moed_routing_reference {
    uint64_t rows;
    double *share;       /* of the selections */
    double *weight;      /* of the absolute combine weights; NULL: absent */
    double *probability; /* mean of the distribution; NULL: absent */
};

/* A gate: a MoE layer's only one, or one of several that choose among the layer's experts. */
struct moed_gate_info {
    const char *name;            /* the layer's, or "<layer>.<gate>"; unique in the model */
    size_t experts;              /* among which it chooses */
    const int32_t *expert_index; /* [experts] their indices in the layer; NULL: 0, 1, 2, ... */
    size_t top_k;                /* experts that serve one routed item; equals experts if dense */
    bool limited;                /* experts have a capacity: items may be dropped */
    bool signed_weights;         /* combine weights may be negative */
    bool fixed_top_k;            /* combine weights are defined for this top_k only */
    size_t groups, groups_kept;  /* of equal size, and of which it chooses; 0: no groups */
    size_t group_experts;        /* the best of a group, by which it is valued */
    size_t items_per_row;        /* routed items per row */
    uint64_t expert_bytes;       /* of weights that one more expert reads */
    struct moed_routing_reference *reference; /* NULL: the checkpoint has none */
};

/* The layers of a model that look back equally far, and what they keep of a position. */
struct moed_kind {
    size_t window; /* positions, the present one included; 0: back to the first */
    uint64_t position_bytes;
};

enum { MOED_MAX_KINDS = 4 };

/* Everything a front end may know about a model. Borrowed: lives as long as the model. */
struct moed_model_info {
    const char *description;    /* "" if the checkpoint has none */
    const char *family;         /* the model_type of a published checkpoint; NULL: moed's own */
    const char *const *ignored; /* [ignored_count] its tensors that inference does not need */
    size_t ignored_count;
    size_t input_count;
    const struct moed_tensor_info *inputs;
    size_t output_count;
    const struct moed_tensor_info *outputs;
    size_t gate_count; /* one or more for each MoE layer */
    const struct moed_gate_info *gates;
    uint64_t parameters;            /* stored numbers */
    uint64_t active_parameters;     /* read for one row, without unselected experts */
    uint64_t shared_bytes;          /* of weights that every row reads, whatever it selects */
    uint64_t macs_per_row;          /* multiply-accumulates, without unselected experts */
    uint64_t weight_bytes;          /* resident weights: mapped, converted or packed */
    uint64_t mapped_bytes;          /* of them: those that stay in mapped files */
    uint64_t scratch_bytes_per_row; /* allocated by moed_scratch_new() per row */
    /* Rows are the positions of sequences, at most `context` each: a span is one, or the next part
     * of one. `context` is 0 for other models. */
    bool sequence;
    size_t context;
    /* What a session keeps for each position of its sequence. 0: rows need no session; otherwise
     * every span of a forward pass does. */
    uint64_t position_bytes;
    /* By what looks back how far: position_bytes is their sum. The first is that of layers without
     * a window, even if there are none. */
    size_t kind_count;
    struct moed_kind kinds[MOED_MAX_KINDS];
};

struct moed_model;
struct moed_scratch;
struct moed_pages;
struct moed_session;
struct moed_team;
struct moed_intervention; /* core/intervention.h */

/* How a model stores the matrices of its linear, glu and attention layers. */
enum moed_weights {
    MOED_WEIGHTS_STORED, /* in the precision of the checkpoint */
    /* In 8 or 4 bits with a scale for every 32 inputs of an output (core/dense/integers.h): less
     * memory to read, and answers that differ slightly. Gates keep their stored precision: for the
     * same input, routing is unchanged. With INT4 an output's own layers, such as a language
     * model's head, have 6 bits, and in the first and last eighth of a model's residuals all but
     * glu layers. What is stored in MXFP4 is held exactly, in its 4 bits. */
    MOED_WEIGHTS_INT8,
    MOED_WEIGHTS_INT4,
};

/* How sessions keep the keys and values of attention. */
enum moed_kv {
    MOED_KV_F16, /* rounded: half the memory */
    MOED_KV_F32,
};

/* What such a matrix is multiplied with. */
enum moed_activations {
    MOED_ACTIVATIONS_INT8, /* with weights of integers inputs rounded alike, else F32 */
    /* With BF16 weights inputs rounded alike, too, if moed_multiplies_bf16(). */
    MOED_ACTIVATIONS_BF16,
    MOED_ACTIVATIONS_F32, /* inputs as they are */
};

struct moed_load_options {
    enum moed_weights weights;
    enum moed_activations activations;
    enum moed_kv kv;
    bool copy; /* map no file: its bytes are read at once, and later changes do not matter */
    /* Reads headers only, in a moment and with little memory: the model tells all about itself, and
     * runs no forward pass. That weights are finite is not checked. */
    bool headers_only;
};

/* Loads a checkpoint directory (core/CHECKPOINT.md). `options` may be NULL: all members 0. The
 * directory is untrusted: every size, offset, shape and name is checked, and an error names the
 * file and the tensor or the JSON path. Returns NULL on error. */
MUST_CHECK struct moed_model *moed_model_load(const char *directory,
                                              const struct moed_load_options *options,
                                              struct error *err);
void moed_model_free(struct moed_model *model);

/* From now on memory of models that are freed is kept for those that are loaded next, which then
 * load faster and take less of the machine; or, if not `keep`, no longer, and it is freed. Whether
 * any is kept. Any thread. */
void moed_keep_spare_memory(bool keep);
bool moed_has_spare_memory(void);

/* Why a directory without safetensors has no weights that are read, and what to do about it, if it
 * has PyTorch's; else NULL. */
const char *moed_pickled_weights(const char *directory);

/* Process-wide, once: from now on a checkpoint file that is truncated while it is mapped does not
 * end the process by SIGBUS. Its model reads zeros, and is damaged. */
MUST_CHECK int moed_survive_truncation(struct error *err);

/* Whether that has happened to a model: what it has computed since is worth nothing. To be asked
 * after a forward. Any thread. */
bool moed_model_is_damaged(const struct moed_model *model);

const struct moed_model_info *moed_model_info(const struct moed_model *model);

/* One line of a model's architecture, outermost layers first. */
struct moed_layer_info {
    int depth; /* 0 for the model's own layers, +1 inside residual, gate, experts */
    /* For the first layer of a part, the part's role: "gate", "experts", "shared", "residual",
     * "input" or "output"; "" for other layers. */
    const char *role;
    const char *part; /* the name of an input, output or gate among several; "" if there is one */
    const char *op;   /* "linear", "moe", ... */
    const char *name; /* "" for a layer without tensors */
    struct moed_shape in, out;
    uint64_t parameters; /* of this layer and those inside it; inside experts: of one expert */
    const struct moed_gate_info *gates; /* [gate_count] its gates; NULL unless op is "moe" */
    size_t gate_count;
};

/* Calls `visit` for every layer in order of execution. Of the experts only the first is visited. */
void moed_model_visit(const struct moed_model *model,
                      void (*visit)(const struct moed_layer_info *layer, void *context),
                      void *context);

/* A team of `threads` compute threads, the caller's included, that share one forward pass. A team
 * runs one forward pass at a time. With threads == 1 no thread is started. */
struct moed_team *moed_team_new(unsigned threads);
void moed_team_free(struct moed_team *team);

struct moed_scratch_options {
    size_t max_rows;    /* of one forward */
    unsigned threads;   /* of the largest team that runs one */
    bool distributions; /* keep every gate's distribution, which statistics need */
};

/* Allocates the buffers of one forward pass at a time; the pass itself never allocates. NULL if
 * shapes and rows multiply to more memory than any served model needs. */
MUST_CHECK struct moed_scratch *moed_scratch_new(const struct moed_model *model,
                                                 const struct moed_scratch_options *options,
                                                 struct error *err);
void moed_scratch_free(struct moed_scratch *scratch);

/* What it has allocated. */
uint64_t moed_scratch_bytes(const struct moed_scratch *scratch);

/* Consecutive rows of a batch that belong together: the rows of one request, or the next positions
 * of one sequence, which see what its session keeps of earlier positions. */
struct moed_span {
    size_t rows;                  /* >= 1 */
    size_t position;              /* of the first row: moed_session_length(); 0 without a session */
    struct moed_session *session; /* used by no other span of the batch; NULL: none */
    const struct moed_intervention *intervention; /* finished; NULL: routed as the gates decide */
};

/* The rows of one forward pass: those of the first span, then those of the second, and so on. The
 * caller owns all memory. */
struct moed_batch {
    const struct moed_span *spans;
    size_t span_count;         /* >= 1 */
    const void *const *inputs; /* [input_count] [rows, elements] raw values: int32_t of an input
                                  of categories, else f32 */
    float *const *outputs;     /* [output_count] [rows, elements] */
    /* [rows] Only these rows go through the layers of outputs, which hold them alone, in order:
     * [wanted rows, elements]. NULL: all. Only for models with info->sequence. */
    const bool *wanted;
};

/* Memory for the positions of sequences, in pages of MOED_PAGE_POSITIONS. */
enum { MOED_PAGE_POSITIONS = 32 };

/* What there are pages for: `positions` positions in all. Layers with a window see only the last of
 * a sequence's, and have pages for no more than `sequences` sequences hold at a time, whose next
 * spans have `step_rows` rows together at most. 0 sequences: any number, and any spans. */
struct moed_room {
    size_t positions, sequences, step_rows;
};

/* What these pages take at most; UINT64_MAX if that is more. */
uint64_t moed_room_bytes(const struct moed_model_info *info, const struct moed_room *room);

/* Of layers of this kind. */
size_t moed_room_pages(const struct moed_kind *kind, const struct moed_room *room);

/* Pages of all kinds, one allocation for each, which takes memory as it is used. One thread at a
 * time may call what takes pages or sessions of them, forward passes apart: those use only the
 * sessions of their spans, and may run beside. `model` must outlive them. NULL if there is not so
 * much memory. */
MUST_CHECK struct moed_pages *moed_pages_new(const struct moed_model *model,
                                             const struct moed_room *room, struct error *err);
void moed_pages_free(struct moed_pages *pages); /* after its sessions */

/* How many there are, of all kinds; that sessions have, or have been promised of layers without a
 * window; that only the prefix cache has, which gives them away when they are wanted. */
size_t moed_pages_total(const struct moed_pages *pages);
size_t moed_pages_used(const struct moed_pages *pages);
size_t moed_pages_idle(const struct moed_pages *pages);

/* The memory of one sequence, as yet of no position. One forward pass at a time may use it, on any
 * thread, with any scratch of the model; meanwhile nothing else may. */
struct moed_session *moed_session_new(struct moed_pages *pages);

/* Gives its pages back; those that are full stay findable until they are wanted. */
void moed_session_free(struct moed_session *session);

/* Promises the session pages for `positions` positions in all: moed_session_reserve() gives them
 * whatever others take meanwhile, if moed_session_share() follows every forward pass and if the
 * rows for which sessions have reserved, and not yet been shared, fit the room's step_rows. -1 if
 * there are not so many to promise, or if that exceeds the model's context: then nothing has
 * changed. */
MUST_CHECK int moed_session_promise(struct moed_session *session, size_t positions);

/* Gives the session pages for `positions` positions in all, which forward passes may then reach,
 * and promises them if they were not promised. -1 as above. */
MUST_CHECK int moed_session_reserve(struct moed_session *session, size_t positions);

/* Lets a session of which nothing was asked yet begin with positions that another one has computed
 * for the same first tokens without intervention: full pages of them, as far as layers with a
 * window still have theirs, and never all `count`, so that a row is left to compute. Not for a
 * sequence that will have interventions. Returns the session's new length. */
size_t moed_session_find_prefix(struct moed_session *session, const int32_t *tokens, size_t count);

/* To be called between forward passes: lets other sessions find the full pages that this one has
 * computed so far, and gives back those of layers with a window that are behind it. */
void moed_session_share(struct moed_session *session);

/* The number of positions it has seen. */
size_t moed_session_length(const struct moed_session *session);

/* Forgets the positions from `length` on, and gives back their pages and what was reserved: reserve
 * again to go on. `length` is at most moed_session_length(); it is 0 or just that for a model with
 * layers that have a window. */
void moed_session_truncate(struct moed_session *session, size_t length);

/* Runs 1..max_rows rows through the model on `team` (borrowed for the call; NULL: the calling
 * thread alone), which must not be larger than the scratch allows. Preprocessing is part of the
 * model. Cannot fail: everything that could go wrong was refused at load. A row's outputs and
 * routing do not depend on the other rows of the batch, with any kernel but OpenBLAS's
 * (core/dense/kernel_openblas.c). There are two exceptions: with experts that have a capacity they
 * depend on the rows of the same span, and with a session on the earlier rows of the sequence,
 * however those were cut into spans. */
void moed_forward(const struct moed_model *model, struct moed_scratch *scratch,
                  struct moed_team *team, const struct moed_batch *batch);

/* One gate's decisions in the last forward pass, item by item: the very arrays that steered
 * execution. Borrowed: valid until the scratch's next forward pass. moed_gate_counts_count() counts
 * any range of items. */
struct moed_routing {
    size_t items; /* rows * items_per_row */
    size_t experts;
    size_t top_k;
    const int32_t *expert; /* [items, top_k] best first, the layer's indices; -1: dropped, padding,
                              or fewer experts were asked for */
    const int32_t *choice; /* [items, top_k] as chosen, before any was dropped; the gate's indices;
                              -1: padding, or fewer experts were asked for */
    const float *weight;   /* [items, top_k] combine weights; 0: dropped */
    /* NULL unless the scratch keeps distributions. p is the gate's distribution over ALL experts,
     * before the choice. Finite, whatever the input. */
    const float *probability; /* [items, experts] p */
    const float *entropy;     /* [items] -sum_i p_i log2 p_i, in bits */
    const float *margin;      /* [items] p(1st) - p(2nd) */
    /* [the layer's experts] how long each served one item, in units of 2^-32 seconds; nothing of
     * experts that served none. NULL unless the scratch keeps distributions. */
    const uint64_t *seconds;
};

/* Of the gate info->gates[index]. */
const struct moed_routing *moed_routing(const struct moed_scratch *scratch, size_t index);

/* The matrix kernel in use, for logs and benchmarks: "avx512vnni", "avx512", "avxvnni",
 * "avx2", "dotprod", "neon", "generic" or "openblas". The environment variable MOED_KERNEL names
 * one; if this machine cannot run it, "generic" is used. */
const char *moed_kernel_name(void);

/* Whether this machine's kernel has products of BF16. */
bool moed_multiplies_bf16(void);

/* Returns -1 with an error if MOED_KERNEL names a kernel that does not exist or cannot run here. */
MUST_CHECK int moed_kernel_check(struct error *err);

#endif
