/* A list of layers run one after the other. Each reads what the one before it gave, or a value that
 * an earlier one left under a name. */
#ifndef CORE_CHAIN_H
#define CORE_CHAIN_H

#include "core/layers/values.h"

struct chain {
    struct layer *layers;
    size_t count;
    struct moed_shape in, out;
    size_t in_elements, out_elements, max_elements;
    bool padded_in, padded;    /* as of a layer */
    bool collective, branched; /* branched: a layer reads by name */
    struct values values;      /* those with names */
    struct plan plan, task;    /* a task's lies in the chain's, and all layers' in a task's */
    size_t buffers[2], tasks;  /* places in plan: between segments; all tasks; */
    size_t named;              /* the values with names */
    /* Places in task: between layers; inside them; local values. */
    size_t task_buffers[2], task_layers, task_named;
    struct cost cost;
};

/* Builds node[key], a list of layers, for rows of shape `in`. On error nothing is left to close. */
MUST_CHECK int chain_build(struct chain *chain, const struct scope *scope, struct config_node *node,
                           const char *key, const struct moed_shape *in, struct error *err);
void chain_close(struct chain *chain);

/* A chain without layers: what it gives is what it is given. */
void chain_init(struct chain *chain, const struct moed_shape *in);

/* Runs all layers over x: [rows, in] into y: [rows, out]; without layers, copies. With a team,
 * layers that treat rows alike share the rows out among its threads. */
void chain_forward(const struct chain *chain, const struct run *run, size_t rows, const float *x,
                   float *y);

/* Layers [from, to) of a chain. */
struct chain_part {
    const struct chain *chain;
    size_t from, to;
};

/* The same for x: [rows, in of `from`], y: [rows, out of `to - 1`]. */
void chain_forward_part(const struct chain_part *part, const struct run *run, size_t rows,
                        const float *x, float *y);

/* Index of the layer called `name`, or chain->count. */
size_t chain_find(const struct chain *chain, const char *name);

#endif
