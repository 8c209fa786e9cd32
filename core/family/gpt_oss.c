/* gpt_oss: experts with interleaved gate and up, in MXFP4 as published or in one of the plain
 * dtypes; a window in every other layer, sinks, biases everywhere. */
#include "core/family/decoder.h"
#include "core/family/families.h"
#include "core/text.h"

/* Where the numbers of one expert's matrices lie. */
struct packing {
    struct view_part up, down; /* of the first expert; up: its gate */
    size_t up_after_gate;
};

/* [experts, hidden, 2 size] and [experts, size, hidden]: transposed. */
static void find_plain(struct translation *t, const struct decoder *decoder, const char *from,
                       struct packing *packing)
{
    size_t hidden = decoder->hidden, size = decoder->expert_size;
    const size_t up[] = {decoder->expert_count, hidden, 2 * size};
    const size_t down[] = {decoder->expert_count, size, hidden};
    packing->up.source = stored(t, named("%s.gate_up_proj", from).text, 3, up);
    packing->down.source = stored(t, named("%s.down_proj", from).text, 3, down);
    packing->up.row_stride = 2;
    packing->up.column_stride = 2 * size;
    packing->down.row_stride = 1;
    packing->down.column_stride = hidden;
    packing->up_after_gate = 1;
}

/* A matrix in blocks of 32 numbers along its rows: 16 bytes, and an exponent. */
static void find_blocks(struct translation *t, const char *from, const size_t dims[3],
                        struct view_part *part)
{
    size_t blocks[] = {dims[0], dims[1], dims[2] / MXFP4_BLOCK, MXFP4_BLOCK / 2};
    if (dims[2] % MXFP4_BLOCK != 0)
        error_set(t->err, ERROR_INVALID,
                  "config.json: rows of %zu number%s cannot make blocks of %d", dims[2],
                  text_s(dims[2]), MXFP4_BLOCK);
    part->source = stored_bytes(t, named("%s_blocks", from).text, 4, blocks);
    part->scales = stored_bytes(t, named("%s_scales", from).text, 3, blocks);
    part->row_stride = dims[2];
    part->column_stride = 1;
}

/* [experts, 2 size, hidden] and [experts, hidden, size]. */
static void find_mxfp4(struct translation *t, const struct decoder *decoder, const char *from,
                       struct packing *packing)
{
    size_t hidden = decoder->hidden, size = decoder->expert_size;
    const size_t up[] = {decoder->expert_count, 2 * size, hidden};
    const size_t down[] = {decoder->expert_count, hidden, size};
    find_blocks(t, named("%s.gate_up_proj", from).text, up, &packing->up);
    find_blocks(t, named("%s.down_proj", from).text, down, &packing->down);
    packing->up.row_stride = 2 * hidden;
    packing->up_after_gate = hidden;
}

static void add_biases(struct translation *t, const struct decoder *decoder, const char *from,
                       size_t layer)
{
    size_t hidden = decoder->hidden, size = decoder->expert_size;
    const size_t up_dims[] = {decoder->expert_count, 2 * size};
    const size_t down_dims[] = {decoder->expert_count, hidden};
    struct view_part up = {.source =
                               stored(t, named("%s.gate_up_proj_bias", from).text, 2, up_dims),
                           .rows = size,
                           .columns = 1,
                           .row_stride = 2,
                           .column_stride = 1};
    struct view_part down = {.source =
                                 stored(t, named("%s.down_proj_bias", from).text, 2, down_dims),
                             .rows = hidden,
                             .columns = 1,
                             .row_stride = 1,
                             .column_stride = 1};
    for (size_t e = 0; e < decoder->expert_count && !translation_failed(t); e++) {
        struct tensor_name to = named("layers.%zu.moe.experts.%zu", layer, e);
        up.first = 2 * e * size;
        add_part(t, named("%s.glu.gate.bias", to.text).text, 1, &up);
        up.first++;
        add_part(t, named("%s.glu.up.bias", to.text).text, 1, &up);
        down.first = e * hidden;
        add_part(t, named("%s.down.bias", to.text).text, 1, &down);
    }
}

static void add_experts(struct translation *t, const struct decoder *decoder, size_t layer)
{
    size_t hidden = decoder->hidden, size = decoder->expert_size;
    struct tensor_name from = named("model.layers.%zu.mlp.experts", layer);
    struct packing packing = {.up = {.rows = size, .columns = hidden},
                              .down = {.rows = hidden, .columns = size}};
    bool plain = is_stored(t, named("%s.gate_up_proj", from.text).text);
    (plain ? find_plain : find_mxfp4)(t, decoder, from.text, &packing);
    for (size_t e = 0; e < decoder->expert_count && !translation_failed(t); e++) {
        struct tensor_name to = named("layers.%zu.moe.experts.%zu", layer, e);
        packing.up.first = 2 * e * size * hidden;
        add_part(t, named("%s.glu.gate.weight", to.text).text, 2, &packing.up);
        packing.up.first += packing.up_after_gate;
        add_part(t, named("%s.glu.up.weight", to.text).text, 2, &packing.up);
        packing.down.first = e * size * hidden;
        add_part(t, named("%s.down.weight", to.text).text, 2, &packing.down);
    }
    add_biases(t, decoder, from.text, layer);
}

static void read_keys(struct translation *t, struct decoder *decoder)
{
    decoder_read_experts(t, decoder, "num_local_experts", "num_experts_per_tok",
                         "intermediate_size");
    read_only_size(t, "experts_per_token", decoder->top_k); /* the same in older configs */
    decoder->names.gate = "router";
    decoder->gate_bias = decoder->sinks = true;
    decoder->score = "none";
    decoder->normalize = "softmax";
    decoder->add_experts = add_experts;
    decoder->qkv_bias = decoder->out_bias = read_flag(t, "attention_bias", true);
    decoder->tied = read_flag(t, "tie_word_embeddings", false);
    decoder->bends = json_pack("{s:f, s:f, s:f}", "limit", read_real(t, "swiglu_limit", 7), "alpha",
                               read_real(t, "swiglu_alpha", 1.702), "shift", 1.0);
    size_t window = read_size(t, "sliding_window", 128);
    for (size_t i = 0; i < decoder->layer_count; i++) {
        decoder->layers[i].sparse = true;
        decoder->layers[i].window = i % 2 == 0 ? window : 0;
    }
    decoder_read_windows(t, decoder, window);
}

json_t *gpt_oss_translate(struct translation *t)
{
    static const struct rope_defaults rope = {150000, 1, false};
    struct decoder decoder = {0};
    decoder_read(t, &decoder, 1e-5);
    read_keys(t, &decoder);
    if (!config_has(t->config, "rope_parameters") && !config_has(t->config, "rope_scaling"))
        error_set(t->err, ERROR_INVALID, "config.json: rope_scaling: missing; expected YaRN's");
    decoder.rotary = rope_translate(t, &rope, decoder.head_dim, &decoder.context);
    json_t *config = translation_failed(t) ? NULL : decoder_translate(t, &decoder);
    family_decoder_close(&decoder);
    return config;
}
