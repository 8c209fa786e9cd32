/* The inside of a model; private to model.c (loading) and forward.c (running). */
#ifndef CORE_MODEL_H
#define CORE_MODEL_H

#include "moe.h"

/* x' = (x * scale - mean[c]) / std[c], c the first axis of the input; lists of one number count for
 * every channel, absent ones are 0 and 1. */
struct preprocess {
    bool present;
    struct moed_shape shape;
    float scale;
    double *mean, *std;
    size_t mean_count, std_count;
};

struct moed_model {
    struct safetensors *tensors;
    struct chain chain;
    struct preprocess preprocess;
    struct moed_tensor_info input, output;
    struct moed_moe_info *moe;
    size_t moe_count;
    char **labels;
    size_t label_count;
    char *description, *input_name, *output_name;
    struct moed_model_info info;
};

#endif
