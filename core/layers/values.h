/* Named values: what a layer gives to later layers of its list, which read it by name.
 *
 * A list without names is a chain: every layer reads what the one before it gave, and two buffers
 * are enough. A named value has a place of its own from the layer that gives it to the last one
 * that reads it; values that do not live at the same time share memory. Private to chain.c. */
#ifndef CORE_VALUES_H
#define CORE_VALUES_H

#include "core/layers/layer.h"

/* Of one list. A block of a published model has a handful; joined lists, a few hundred. */
enum { MAX_VALUES = 1024 };
/* That one layer joins, besides its input: the densest published block has 48. */
enum { MAX_OPERANDS = 256 };

/* What a layer reads, as struct links says it. */
enum { VALUE_BEFORE, VALUE_INPUT, VALUE_FIRST };

struct value {
    const char *name; /* borrowed from config.json; only while the list is built */
    struct moed_shape shape;
    size_t elements;
    size_t defined, last; /* layers: the one that gives it, the last that reads it (0: none yet) */
    bool padded;
    bool local;   /* only one task's layers see it (chain.c) */
    size_t place; /* among the floats of all local values of a row, or of all others */
};

struct values {
    struct value *list; /* [count] */
    size_t count;
    size_t floats, local_floats; /* that they need for each row */
    size_t layer;                /* the number of the one that is being built */
};

/* Reads the layer's "result", "input" and, if its op joins values, "of"; values->layer is its
 * number. `in` becomes the shape of its input, which is `before` unless it names another;
 * `operands` those of "of", [MAX_OPERANDS]. */
struct sources {
    const struct moed_shape *list, *before; /* the list's input; what the layer before gave */
    bool list_padded, before_padded;
    struct moed_shape *in, *operands;
    bool padded_operands; /* becomes: one of them is */
};
MUST_CHECK int values_link(struct values *values, struct layer *layer, const struct scope *scope,
                           struct config_node *node, struct sources *sources, struct error *err);

/* Keeps what a built layer gives, if it has a "result". */
MUST_CHECK int values_keep(struct values *values, struct layer *layer, const struct scope *scope,
                           struct config_node *node, struct error *err);

/* The named value that no layer reads; NULL: there is none. */
const struct value *values_unread(const struct values *values);

/* Gives every value its place, once the list is complete. */
void values_place(struct values *values);
void values_close(struct values *values);

#endif
