/* What a wire format knows about a model: names and shapes, never a weight. The server fills one
 * from a loaded model; every pointer is borrowed from that model. */
#ifndef PROTO_SIGNATURE_H
#define PROTO_SIGNATURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct words; /* proto/words.h */

struct signature_tensor {
    const char *name;
    size_t rank;               /* axes of one row, without the batch axis */
    const size_t *dims;        /* [rank] */
    size_t elements;           /* per row */
    size_t categories;         /* inputs: integers from 0 to this - 1; 0: any numbers */
    const struct words *words; /* inputs of categories: their names, [categories]; NULL: none */
    bool has_unknown;          /* inputs of categories: */
    int32_t unknown;           /* what a value that is none of them becomes; else it is refused */
    bool has_missing;          /* inputs: */
    double missing;            /* what null becomes; else it is refused */
    size_t label_count;        /* outputs: names of the last axis; 0: none */
    const char *const *labels;
};

struct signature_gate {
    const char *name;
    size_t experts, top_k;
    size_t items_per_row;        /* routed items per row; 1 unless the layer routes positions */
    const int32_t *expert_index; /* [experts] their indices in the layer; NULL: 0, 1, 2, ... */
};

struct signature {
    const char *model;
    const char *version;
    size_t input_count, output_count, gate_count;
    const struct signature_tensor *inputs;
    const struct signature_tensor *outputs;
    const struct signature_gate *gates;
};

#endif
