/* The inside of a model; private to loading (model.c), walking (visit.c) and running (scratch.c,
 * forward.c). */
#ifndef CORE_MODEL_H
#define CORE_MODEL_H

#include "core/layers/chain.h"

/* x' = (x * scale - mean[c]) / std[c], c the first axis of the input; lists of one number count for
 * every channel, absent ones are 0 and 1. */
struct preprocess {
    bool present;
    struct moed_shape shape;
    float scale;
    double *mean, *std;
    size_t mean_count, std_count;
};

/* Inputs and outputs: a model with more is no model but an attack on start-up time. */
enum { MAX_TENSORS = 1024 };

struct input {
    struct preprocess preprocess;
    bool integers_become_f32;         /* before anything else; excludes preprocess */
    struct chain chain;               /* count 0: none */
    struct moed_shape out;            /* what it gives to the model's layers */
    size_t prepared, encoded, layers; /* places in the model's plan */
};

struct output {
    struct chain chain; /* count 0: what the model's layers give */
    char **labels;
    size_t label_count;
};

struct moed_model {
    struct safetensors *tensors;
    size_t input_count, output_count;
    struct moed_tensor_info *input_info, *output_info; /* their names are owned */
    struct input *inputs;
    struct output *outputs;
    struct moed_shape joined; /* what enters `chain`: the input, or all inputs side by side */
    struct chain chain;
    struct plan plan; /* of a forward */
    /* Places: joined inputs; what the layers give; all layers, of outputs too. */
    size_t joined_place, given, layers;
    struct moed_gate_info *gates; /* [gate_count] their names are owned */
    size_t gate_count;
    struct moe_sizes *moe; /* [moe_count] */
    size_t moe_count;
    size_t session_bytes, position_bytes; /* of a session */
    char *description;
    struct moed_model_info info;
};

/* Whether the only output is what the layers give, which is then written straight into its place.
 */
bool model_output_is_direct(const struct moed_model *model);

#endif
