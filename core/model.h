/* The internals of a model, private to core/: model.c loads it, visit.c walks over it, scratch.c
 * and forward.c run it. */
#ifndef CORE_MODEL_H
#define CORE_MODEL_H

#include "core/family/family.h"
#include "core/layers/chain.h"

/* x' = (x * scale - mean[c]) / std[c], where c is the index along the input's first axis. A list of
 * one number applies to every channel; an absent mean is 0, an absent std 1. */
struct preprocess {
    bool present;
    struct moed_shape shape;
    float scale;
    double *mean, *std;
    size_t mean_count, std_count;
};

/* Bounds inputs and outputs: a larger config is an attack on start-up time, not a model. */
enum { MAX_TENSORS = 1024 };

struct input {
    struct preprocess preprocess;
    bool integers_become_f32; /* before anything else; excludes preprocess */
    struct chain chain;       /* count 0: none */
    struct moed_shape out;    /* of its encoded values, which the model's layers read */
    char **words;             /* [word_count] what its categories are called; owned */
    size_t word_count;
    const char *length_name;          /* of its "length"; borrowed while it is loaded */
    bool has_lengths;                 /* another input holds them: */
    size_t length;                    /* which */
    bool is_length;                   /* holds those of another, and is no data itself */
    bool padded;                      /* of `out` */
    size_t prepared, encoded, layers; /* places in the model's plan */
};

struct output {
    struct chain chain; /* count 0: the output of the model's layers */
    bool padded;
    char **labels;
    size_t label_count;
};

struct moed_model {
    struct safetensors *tensors;
    struct panels_store weights; /* of matrices, packed */
    struct family family;        /* all 0 unless config.json is a published one */
    size_t input_count, output_count;
    struct moed_tensor_info *input_info, *output_info; /* their names are owned */
    struct input *inputs;
    struct output *outputs;
    size_t data_count, data;  /* inputs that are no lengths; the first of them */
    struct moed_shape joined; /* what enters `chain`: the input, or all inputs side by side */
    struct chain chain;
    struct plan plan; /* of a forward */
    /* Places: the joined inputs; the output of `chain`; scratch of all layers, those of outputs
     * included. */
    size_t joined_place, given, layers;
    size_t context;               /* positions of a sequence; 0: rows are independent */
    struct moed_gate_info *gates; /* [gate_count] their names are owned */
    size_t gate_count;
    struct moe_sizes *moe; /* [moe_count] */
    size_t moe_count;
    size_t position_bytes; /* of a session */
    size_t kind_count;
    struct moed_kind kinds[MOED_MAX_KINDS];
    char *description;
    bool headers_only; /* it has no numbers, and is not run */
    struct moed_model_info info;
};

/* Reads "input" or "inputs" of the config's root. */
MUST_CHECK int model_read_inputs(struct moed_model *model, const struct scope *scope,
                                 struct config_node *root, struct error *err);
void model_free_inputs(struct moed_model *model);

/* Reads the "name" of tensors[index], which no earlier one may have. `otherwise`: the default;
 * NULL: there is none. */
MUST_CHECK int model_name_tensor(struct moed_tensor_info *tensors, size_t index,
                                 struct config_node *node, const char *otherwise,
                                 struct error *err);

/* Whether the only output is that of the model's layers, which then write it directly to its
 * destination. */
bool model_output_is_direct(const struct moed_model *model);

#endif
