/* Fake models and results for the tests and fuzz targets of proto/. */
#ifndef TEST_PROTO_MODELS_H
#define TEST_PROTO_MODELS_H

#include <stdint.h>

#include "proto/infer.h"

/* The model `digits`, version 3: one input [1,2,3], one labelled output [4], a MoE layer of five
 * experts and two choices, and one that routes two positions of each row. */
static const char *const digits_labels[] = {"zero", "one", "two \"2\"", "three"};
static const struct signature_tensor digits_input = {
    .name = "image", .rank = 3, .dims = (const size_t[]){1, 2, 3}, .elements = 6};
static const struct signature_tensor digits_output = {.name = "scores",
                                                      .rank = 1,
                                                      .dims = (const size_t[]){4},
                                                      .elements = 4,
                                                      .label_count = 4,
                                                      .labels = digits_labels};
static const struct signature_gate digits_gates[] = {{"moe", 5, 2, 1, NULL},
                                                     {"blocks.1", 3, 1, 2, NULL}};
static const struct signature digits_model = {
    .model = "digits",
    .version = "3",
    .input_count = 1,
    .output_count = 1,
    .gate_count = 2,
    .inputs = &digits_input,
    .outputs = &digits_output,
    .gates = digits_gates,
};

/* Two inputs and two outputs, no MoE layer. */
static const struct signature_tensor pair_inputs[] = {
    {.name = "left", .rank = 1, .dims = (const size_t[]){2}, .elements = 2},
    {.name = "right", .elements = 1},
};
static const struct signature_tensor pair_outputs[] = {
    {.name = "sum", .rank = 2, .dims = (const size_t[]){1, 2}, .elements = 2},
    {.name = "flag", .elements = 1},
};
static const struct signature pair_model = {
    .model = "pair",
    .version = "1",
    .input_count = 2,
    .output_count = 2,
    .inputs = pair_inputs,
    .outputs = pair_outputs,
};

static const struct infer_limits test_limits = {.max_rows = 8, .max_response_bytes = 1 << 20};

/* Results of `digits` for up to 8 rows: distinct, short numbers. Fill with fake_result_init. */
struct fake_result {
    float outputs[8 * 4];
    int32_t experts[2][8 * 2];
    float weights[2][8 * 2];
    float probabilities[2][8 * 6];
    const float *output_list[1];
    const int32_t *expert_list[2];
    const float *weight_list[2], *probability_list[2];
    struct infer_result result;
};

static inline void fake_result_init(struct fake_result *fake)
{
    for (int i = 0; i < 32; i++)
        fake->outputs[i] = (float)((i * 5) % 32) / 32;
    for (int i = 0; i < 16; i++) {
        fake->experts[0][i] = i % 5;
        fake->experts[1][i] = i % 3;
        fake->weights[0][i] = i % 2 ? 0.25f : 0.75f;
        fake->weights[1][i] = 1;
    }
    for (int i = 0; i < 96; i++)
        fake->probabilities[i / 48][i % 48] = (float)(i % 8) / 8;
    fake->output_list[0] = fake->outputs;
    for (int i = 0; i < 2; i++) {
        fake->expert_list[i] = fake->experts[i];
        fake->weight_list[i] = fake->weights[i];
        fake->probability_list[i] = fake->probabilities[i];
    }
    fake->result = (struct infer_result){fake->output_list, fake->expert_list, fake->weight_list,
                                         fake->probability_list};
}

#endif
