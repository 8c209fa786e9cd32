/* Layers: what every op has in common. Private to core/.
 *
 * A layer is one op with its weights, bound at load: `build` reads the op's keys, infers the shape
 * of its output, claims its tensors; `forward` maps rows of the input to rows of the output. Layers
 * are immutable after build; everything a forward changes lives in `struct run`.
 *
 * Adding an op: the engine needs its file (build, forward, free) and its declaration and row in
 * ops.[ch]. Its contract is core/CHECKPOINT.md. Python needs it in clients/python/moed/ops.py,
 * which exports and loads it. Tests: a unit test, a reference in tests/golden/reference_ops.py with
 * cases, and checkpoints of it, good and bad, in tests/data/checkpoints. */
#ifndef CORE_LAYER_H
#define CORE_LAYER_H

#include "core/dense/team.h"
#include "core/layers/plan.h"
#include "core/layers/scope.h"
#include "core/shape.h"

struct layer;
struct chain;
struct routing;
struct dispatch;

/* While running: one worker's view of a forward pass. Copied by value and narrowed on the way down.
 */
struct run {
    struct moed_team *team;        /* NULL inside a task: tasks do not fork again */
    const struct moed_span *spans; /* [span_count] whose rows the batch holds, in order */
    size_t span_count;
    float *arena;      /* scratch of this part; run_floats() */
    float *workspaces; /* [threads, workspace_stride] */
    size_t workspace_stride;
    unsigned worker;              /* whose workspace a layer may use */
    const float *const *operands; /* of a layer that joins values: [links.operand_count] */
    /* [rows] how many of each row's `positions` entries are no padding; NULL: there is none. For
     * layers whose input is padded. */
    const int32_t *lengths;
    size_t positions;
    struct routing *routing;     /* of every gate of the model, by its index */
    struct dispatch *dispatches; /* of every MoE layer of the model, by its index */
};

/* Of the batch. */
static inline size_t batch_rows(const struct run *run)
{
    size_t rows = 0;
    for (size_t i = 0; i < run->span_count; i++)
        rows += run->spans[i].rows;
    return rows;
}

/* What plan_floats() gave `place` for: memory of so many floats for each of `rows`, which are all
 * rows that the part was given; contents are undefined. */
static inline float *run_floats(const struct run *run, size_t place, size_t rows)
{
    return run->arena + place * rows;
}

/* The run of a part inside, whose plan has that place. */
static inline struct run run_part(const struct run *run, size_t place, size_t rows)
{
    struct run part = *run;
    part.arena = run_floats(run, place, rows);
    return part;
}

/* How many entries of the row are no padding, whatever a client sent. */
static inline size_t run_length(const struct run *run, size_t row)
{
    const int32_t length = run->lengths[row];
    return length < 0 ? 0 : (size_t)length < run->positions ? (size_t)length : run->positions;
}

/* The floats of plan_workspace(), which only this worker touches; contents are undefined. */
static inline float *run_workspace(const struct run *run)
{
    return run->workspaces + run->worker * run->workspace_stride;
}

/* What an op makes of rows whose first axis ends in padding, which nothing may depend on. */
enum padding {
    PADDING_REFUSED,   /* it would look at it */
    PADDING_KEPT,      /* every entry of the first axis is worked on by itself, or the op masks */
    PADDING_LAST_AXIS, /* the same, for it works along the last axis: not where that is the first */
    PADDING_OWN,       /* build decides: it refuses, or sets layer->padded */
};

struct layer_op {
    const char *name;
    int format;    /* the format_version that it came with; 0 and 1: the first */
    bool in_place; /* forward may be called with y == x */
    /* Takes the integers of an input with categories: x is [rows, in] of int32_t. Only the first
     * layer of such an input can. */
    bool reads_integers;
    enum padding padding;
    bool joins; /* takes further values of its list, named by "of": run->operands */
    /* Reads the op's keys from `node`, claims tensors in `scope`, which charges the layer's cost.
     * Name, in and op are set; sets out, state, memory and cost.macs, and plans scratch. */
    int (*build)(struct layer *layer, const struct scope *scope, struct config_node *node,
                 struct error *err);
    /* x: [rows, in], y: [rows, out]. */
    void (*forward)(const struct layer *layer, const struct run *run, size_t rows, const float *x,
                    float *y);
    void (*free)(struct layer *layer); /* NULL: nothing but `state` to free */
    /* The layers inside: index 0, 1, ... with the role each list plays; NULL ends. NULL: none. */
    const struct chain *(*child)(const struct layer *layer, size_t index, const char **role);
    /* How many gates it has of its own, in order of execution. NULL: none. */
    size_t (*gates)(const struct layer *layer);
};

/* What a session keeps for a layer (core/session.h). */
struct memory {
    size_t per_position; /* bytes of every position, a multiple of 4 */
    size_t window; /* the layer looks at so many positions, the present one included; 0: at all */
    size_t kind;   /* of layers that look back as far */
    size_t position_at; /* where, among the memory of the kind */
};

/* Which values of its list a layer reads, and what it gives: VALUE_BEFORE, VALUE_INPUT or
 * VALUE_FIRST + i (values.h). */
struct links {
    size_t input;
    size_t *operands; /* [operand_count] owned */
    size_t operand_count;
    size_t result; /* 0: it has no name */
};

struct layer {
    const struct layer_op *op;
    char *name; /* "" when absent */
    struct moed_shape in, out;
    size_t in_elements, out_elements;
    struct links links;
    bool padded_in, padded; /* the first axis of its input, of its output ends in padding */
    /* Whether forward takes all rows of the batch at once and shares them out to run->team by
     * itself (a MoE layer, one with memory, or what holds one). Every other layer works on any
     * rows, and does not look at spans. */
    bool collective;
    struct plan plan;     /* scratch for each row, and workspace */
    struct memory memory; /* build sets per_position and window; nothing inside included */
    struct cost cost;     /* everything inside included */
    void *state;          /* the op's own; malloc'ed */
};

/* Sets layer->out and out_elements, refusing shapes beyond MAX_ROW_ELEMENTS. */
MUST_CHECK int layer_set_out(struct layer *layer, const struct config_node *node,
                             const struct moed_shape *shape, struct error *err);

/* The axis of the input that node's "axis" names, below 0 from the end; `otherwise` stands in for
 * an absent one (CONFIG_REQUIRED: it is required). Refuses an input without axes. */
MUST_CHECK int layer_read_axis(const struct layer *layer, struct config_node *node,
                               int64_t otherwise, size_t *axis, struct error *err);

#endif
