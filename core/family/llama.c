/* Decoders like LLaMA. What they have in common is read first; the rest is a table: numbers that
 * the family's class has by default, and a function that reads the keys which only this family has.
 */
#include <stdlib.h>
#include <string.h>

#include "core/family/decoder.h"
#include "core/family/families.h"

struct difference {
    const char *model_type;
    double eps;
    struct rope_defaults rope;
    void (*read)(struct translation *t, struct decoder *decoder);
};

/* ---- what several have -------------------------------------------------------------------- */

/* All layers have experts, or none if there are none. */
static void all_sparse(struct decoder *decoder)
{
    for (size_t i = 0; i < decoder->layer_count; i++)
        decoder->layers[i].sparse = true;
}

static void route(struct decoder *decoder, const char *score, const char *normalize)
{
    decoder->score = score;
    decoder->normalize = normalize;
}

/* "norm_topk_prob": whether the chosen scores are divided by their sum. */
static void route_softmax(struct translation *t, struct decoder *decoder)
{
    route(decoder, "softmax", read_flag(t, "norm_topk_prob", false) ? "sum" : "none");
}

static void read_attention_bias(struct translation *t, struct decoder *decoder)
{
    decoder->qkv_bias = decoder->out_bias = read_flag(t, "attention_bias", false);
}

static void read_tied(struct translation *t, struct decoder *decoder, bool otherwise)
{
    decoder->tied = read_flag(t, "tie_word_embeddings", otherwise);
}

/* "mlp_only_layers" and "decoder_sparse_step". */
static void read_sparse_layers(struct translation *t, struct decoder *decoder)
{
    size_t step = read_size(t, "decoder_sparse_step", 1), count = 0;
    int32_t *dense = NULL;
    for (size_t i = 0; i < decoder->layer_count; i++)
        decoder->layers[i].sparse = (i + 1) % step == 0;
    const json_t *list = config_has(t->config, "mlp_only_layers")
                             ? json_object_get(t->config->json, "mlp_only_layers")
                             : NULL;
    if (translation_failed(t) || (json_is_array(list) && json_array_size(list) == 0) || !list)
        return;
    if (config_integers(t->config, "mlp_only_layers", within(0, (int64_t)decoder->layer_count - 1),
                        &dense, &count, t->err) != 0)
        return;
    for (size_t i = 0; i < count; i++)
        decoder->layers[dense[i]].sparse = false;
    free(dense);
}

/* Qwen's windows: off in every published checkpoint, and then the other keys say nothing. */
static void read_qwen_windows(struct translation *t, struct decoder *decoder)
{
    read_only_flag(t, "use_sliding_window", false);
    config_has(t->config, "sliding_window");
    config_has(t->config, "max_window_layers");
    decoder_read_windows(t, decoder, 0);
}

static void read_multipliers(struct translation *t, struct decoder *decoder)
{
    decoder->embedding_scale = read_real(t, "embedding_multiplier", 1);
    decoder->residual_scale = read_real(t, "residual_multiplier", 1);
    decoder->attention_scale = read_real(t, "attention_multiplier", 1);
    double scaling = read_real(t, "logits_scaling", 1);
    if (scaling == 0 && !translation_failed(t))
        config_error(t->config, "logits_scaling", t->err, "expected another number than 0");
    decoder->logits_scale = 1 / scaling;
}

/* ---- families ----------------------------------------------------------------------------- */

static void read_olmoe(struct translation *t, struct decoder *decoder)
{
    decoder->qk_norm = QK_NORM_ALL;
    decoder->clip = read_real(t, "clip_qkv", 0);
    decoder_read_experts(t, decoder, "num_experts", "num_experts_per_tok", "intermediate_size");
    all_sparse(decoder);
    route_softmax(t, decoder);
    read_attention_bias(t, decoder);
    read_tied(t, decoder, false);
}

static void read_qwen_experts(struct translation *t, struct decoder *decoder)
{
    /* What transformers 5 saves; both are one number. */
    bool newer = config_has(t->config, "num_local_experts");
    decoder_read_experts(t, decoder, newer ? "num_local_experts" : "num_experts",
                         "num_experts_per_tok", "moe_intermediate_size");
    read_only_size(t, "num_experts", decoder->expert_count);
    decoder->dense_size = read_size(t, "intermediate_size", 0);
    read_sparse_layers(t, decoder);
    route_softmax(t, decoder);
    read_qwen_windows(t, decoder);
    read_tied(t, decoder, false);
}

static void read_qwen3_moe(struct translation *t, struct decoder *decoder)
{
    decoder->qk_norm = QK_NORM_HEAD;
    read_attention_bias(t, decoder);
    read_qwen_experts(t, decoder);
}

static void read_qwen2_moe(struct translation *t, struct decoder *decoder)
{
    decoder->qkv_bias = read_flag(t, "qkv_bias", true);
    decoder->names.shared = "mlp.shared_expert";
    decoder->shared_size = read_size(t, "shared_expert_intermediate_size", 0);
    decoder->shared_gate = true;
    read_qwen_experts(t, decoder);
}

static void name_as_mixtral(struct decoder *decoder)
{
    decoder->names.moe = "block_sparse_moe";
    decoder->names.gate_proj = "w1";
    decoder->names.up_proj = "w3";
    decoder->names.down_proj = "w2";
}

static void read_local_experts(struct translation *t, struct decoder *decoder)
{
    decoder_read_experts(t, decoder, "num_local_experts", "num_experts_per_tok",
                         "intermediate_size");
    all_sparse(decoder);
}

static void read_window_of_all(struct translation *t, struct decoder *decoder)
{
    if (!config_has(t->config, "sliding_window"))
        return;
    size_t window = read_size(t, "sliding_window", 0);
    for (size_t i = 0; i < decoder->layer_count; i++)
        decoder->layers[i].window = window;
}

static void read_mixtral(struct translation *t, struct decoder *decoder)
{
    name_as_mixtral(decoder);
    read_local_experts(t, decoder);
    read_window_of_all(t, decoder);
    read_real(t, "router_jitter_noise", 0); /* of training */
    route(decoder, "softmax", "sum");
    read_tied(t, decoder, false);
}

static void add_granite_experts(struct translation *t, const struct decoder *decoder, size_t layer)
{
    struct tensor_name from = named("model.layers.%zu.block_sparse_moe", layer);
    decoder_add_slabs(t, decoder, layer, named("%s.input_linear.weight", from.text).text,
                      named("%s.output_linear.weight", from.text).text);
}

static void read_granite_moe(struct translation *t, struct decoder *decoder)
{
    decoder->names.moe = "block_sparse_moe";
    decoder->names.gate = "router.layer";
    decoder->names.shared = "shared_mlp";
    decoder->add_experts = add_granite_experts;
    read_local_experts(t, decoder);
    read_multipliers(t, decoder);
    route(decoder, "none", "softmax");
    read_attention_bias(t, decoder);
    read_tied(t, decoder, false);
}

static void read_granite_shared(struct translation *t, struct decoder *decoder)
{
    read_granite_moe(t, decoder);
    const json_t *size = json_object_get(t->config->json, "shared_intermediate_size");
    if (config_has(t->config, "shared_intermediate_size") && json_integer_value(size) != 0)
        decoder->shared_size = read_size(t, "shared_intermediate_size", 0);
}

static void read_phimoe(struct translation *t, struct decoder *decoder)
{
    name_as_mixtral(decoder);
    decoder->centred = true;
    read_local_experts(t, decoder);
    read_window_of_all(t, decoder);
    decoder->jitter = read_real(t, "router_jitter_noise", 0.01);
    decoder->head_bias = read_flag(t, "lm_head_bias", false);
    route(decoder, "sparsemixer", "none");
    read_attention_bias(t, decoder);
    read_tied(t, decoder, false);
}

static void read_ernie(struct translation *t, struct decoder *decoder)
{
    size_t step = read_size(t, "moe_layer_interval", 1);
    int64_t start = 1, end = -1, shared = 2;
    bool bias = read_flag(t, "use_bias", false);
    decoder->qkv_bias = decoder->out_bias = decoder->dense_bias = bias;
    decoder->shared_bias = decoder->head_bias = bias;
    decoder->names.select_bias = "moe_statics.e_score_correction_bias";
    decoder_read_experts(t, decoder, "moe_num_experts", "moe_k", "moe_intermediate_size");
    decoder->dense_size = read_size(t, "intermediate_size", 0);
    if (!translation_failed(t) && (config_integer(t->config, "moe_layer_start_index", 1,
                                                  within(0, INT32_MAX), &start, t->err) != 0 ||
                                   config_integer(t->config, "moe_layer_end_index", -1,
                                                  within(-1, INT32_MAX), &end, t->err) != 0 ||
                                   config_integer(t->config, "moe_num_shared_experts", 2,
                                                  within(0, 1024), &shared, t->err) != 0))
        return;
    decoder->shared_size = (size_t)shared * decoder->expert_size;
    for (size_t i = 0; i < decoder->layer_count; i++)
        decoder->layers[i].sparse =
            (i + 1) % step == 0 && i >= (size_t)start && (end < 0 || i <= (size_t)end);
    read_only(t, "moe_gate", "topk");
    read_only_flag(t, "moe_use_aux_free", true);
    config_has(t->config, "moe_capacity"); /* of training */
    read_real(t, "moe_norm_min", 1e-12);   /* a sum of softmax scores is above every such bound */
    route(decoder, "softmax", "sum");
    read_tied(t, decoder, true);
    ignore_prefix(t, "model.mtp_"); /* layers that guess further tokens */
}

static void read_glm4_moe(struct translation *t, struct decoder *decoder)
{
    decoder->qkv_bias = read_flag(t, "attention_bias", false);
    decoder->qk_norm = read_flag(t, "use_qk_norm", false) ? QK_NORM_HEAD : QK_NORM_NONE;
    decoder->names.select_bias = "gate.e_score_correction_bias";
    decoder_read_experts(t, decoder, "n_routed_experts", "num_experts_per_tok",
                         "moe_intermediate_size");
    decoder->shared_size = read_size(t, "n_shared_experts", 1) * decoder->expert_size;
    decoder->dense_size = read_size(t, "intermediate_size", 0);
    decoder->routed_scale = read_real(t, "routed_scaling_factor", 1);
    decoder->groups = read_size(t, "n_group", 1);
    decoder->groups_kept = read_size(t, "topk_group", 1);
    decoder->groups_by = decoder->groups > 1 ? "top2" : NULL;
    decoder_read_first_dense(t, decoder, "first_k_dense_replace", 1);
    route(decoder, "sigmoid", read_flag(t, "norm_topk_prob", true) ? "sum" : "none");
    read_tied(t, decoder, false);
    decoder->further_layers = true;
}

static void read_hunyuan(struct translation *t, struct decoder *decoder)
{
    decoder->names.gate = "gate.wg";
    decoder->names.shared = "mlp.shared_mlp";
    decoder->names.q_norm = "query_layernorm";
    decoder->names.k_norm = "key_layernorm";
    decoder->qk_norm = QK_NORM_HEAD;
    decoder->normalizes_late = true;
    decoder->expert_count = read_size(t, "num_experts", 0);
    decoder->top_k = read_uniform(t, "moe_topk", 0);
    decoder->expert_size = decoder->shared_size = read_size(t, "intermediate_size", 0);
    if (read_uniform(t, "moe_intermediate_size", decoder->expert_size) != decoder->expert_size ||
        read_uniform(t, "num_shared_expert", 1) != 1)
        error_set(t->err, ERROR_INVALID,
                  "config.json: moe_intermediate_size must be intermediate_size, and "
                  "num_shared_expert 1");
    read_only_flag(t, "use_qk_norm", true);
    read_only_flag(t, "use_cla", false);
    read_only_flag(t, "use_mla", false);
    read_only_flag(t, "mlp_bias", false);
    all_sparse(decoder);
    route(decoder, "softmax", "sum");
    read_attention_bias(t, decoder);
    read_tied(t, decoder, false);
}

/* Keys of the published config with the one value that is understood, and of layers that guess
 * further tokens, whose tensors are not in the files. */
static void read_minimax_fixed(struct translation *t)
{
    static const char *const of_guesses[] = {"mlp_intermediate_size", "mtp_transformer_layers",
                                             "num_mtp_modules", "shared_moe_mode", "use_mtp"};
    static const char *const factors[] = {"layernorm_full_attention_beta",
                                          "layernorm_linear_attention_beta", "layernorm_mlp_beta"};
    for (size_t i = 0; i < sizeof of_guesses / sizeof *of_guesses; i++)
        config_has(t->config, of_guesses[i]);
    for (size_t i = 0; i < sizeof factors / sizeof *factors; i++)
        if (read_real(t, factors[i], 1) != 1)
            config_error(t->config, factors[i], t->err, "only 1 is supported");
    if (read_uniform(t, "attn_type_list", 1) != 1)
        config_error(t->config, "attn_type_list", t->err, "only 1 is supported");
    if (config_has(t->config, "shared_intermediate_size") &&
        json_integer_value(json_object_get(t->config->json, "shared_intermediate_size")) != 0)
        config_error(t->config, "shared_intermediate_size", t->err, "only 0 is supported");
    read_only(t, "qk_norm_type", "per_layer");
    read_only(t, "scoring_func", "sigmoid");
    read_only_flag(t, "use_qk_norm", true);
    read_only_flag(t, "use_routing_bias", true);
}

static void read_minimax(struct translation *t, struct decoder *decoder)
{
    read_minimax_fixed(t);
    name_as_mixtral(decoder);
    decoder->names.select_bias = "e_score_correction_bias";
    decoder->qk_norm = QK_NORM_ALL;
    read_local_experts(t, decoder);
    read_real(t, "router_jitter_noise", 0); /* of training */
    route(decoder, "sigmoid", "sum");
    read_tied(t, decoder, false);
}

/* LFM2: most layers have a short convolution instead of attention. */
static json_t *convolution(struct translation *t, const struct decoder *decoder, size_t layer)
{
    struct tensor_name to = named("layers.%zu.conv", layer);
    struct tensor_name from = named("model.layers.%zu.conv", layer);
    size_t hidden = decoder->hidden, taps = decoder->conv_taps;
    const size_t in[] = {3 * hidden, hidden}, out[] = {hidden, hidden}, dims[] = {hidden, 1, taps};
    const struct view_part part = {.source =
                                       stored(t, named("%s.conv.weight", from.text).text, 3, dims),
                                   .rows = hidden,
                                   .columns = taps,
                                   .row_stride = taps,
                                   .column_stride = 1};
    add_linear(t, named("%s.in_proj", to.text).text, named("%s.in_proj", from.text).text, in,
               decoder->conv_bias);
    add_part(t, named("%s.conv.weight", to.text).text, 2, &part);
    if (decoder->conv_bias)
        add_vector(t, named("%s.conv.bias", to.text).text, named("%s.conv.bias", from.text).text,
                   hidden);
    add_linear(t, named("%s.out_proj", to.text).text, named("%s.out_proj", from.text).text, out,
               decoder->conv_bias);
    return json_pack("{s:s, s:s}", "op", "short_conv", "name", to.text);
}

static json_t *convolution_or_attention(struct translation *t, const struct decoder *decoder,
                                        size_t layer)
{
    return (decoder->layers[layer].convolves ? convolution : decoder_attention)(t, decoder, layer);
}

static void name_as_lfm2(struct decoder *decoder)
{
    struct decoder_names *names = &decoder->names;
    name_as_mixtral(decoder);
    names->attention_norm = "operator_norm";
    names->feed_forward_norm = "ffn_norm";
    names->final_norm = "model.embedding_norm";
    names->q_norm = "q_layernorm";
    names->k_norm = "k_layernorm";
    names->out = "out_proj";
    names->dense = names->moe = "feed_forward";
}

static void read_lfm2_layers(struct translation *t, struct decoder *decoder)
{
    static const char *const names[] = {"full_attention", "conv", NULL};
    decoder_read_first_dense(t, decoder, "num_dense_layers", 2);
    int *types = decoder_read_types(t, decoder, "layer_types", names);
    for (size_t i = 0; types && i < decoder->layer_count; i++)
        decoder->layers[i].convolves = types[i] == 1;
    free(types);
}

static void read_lfm2(struct translation *t, struct decoder *decoder)
{
    name_as_lfm2(decoder);
    decoder->attention = convolution_or_attention;
    decoder->eps = read_real(t, "norm_eps", 1e-5);
    decoder->qk_norm = QK_NORM_HEAD;
    decoder->conv_taps = read_size(t, "conv_L_cache", 3);
    decoder->conv_bias = read_flag(t, "conv_bias", false);
    decoder_read_experts(t, decoder, "num_experts", "num_experts_per_tok", "moe_intermediate_size");
    decoder->dense_size = read_size(t, "intermediate_size", 0);
    decoder->routed_scale = read_real(t, "routed_scaling_factor", 1);
    if (read_flag(t, "use_expert_bias", true))
        decoder->names.select_bias = "expert_bias";
    route(decoder, "sigmoid", read_flag(t, "norm_topk_prob", true) ? "sum" : "none");
    read_lfm2_layers(t, decoder);
    read_tied(t, decoder, read_flag(t, "tie_embedding", true));
}

/* ---- dense -------------------------------------------------------------------------------- */

static void read_dense(struct translation *t, struct decoder *decoder)
{
    decoder->dense_size = read_size(t, "intermediate_size", 0);
    read_attention_bias(t, decoder);
    read_tied(t, decoder, false);
}

static void read_qwen3(struct translation *t, struct decoder *decoder)
{
    decoder->qk_norm = QK_NORM_HEAD;
    read_qwen_windows(t, decoder);
    read_dense(t, decoder);
}

static void read_qwen2(struct translation *t, struct decoder *decoder)
{
    read_qwen_windows(t, decoder);
    read_dense(t, decoder);
    decoder->qkv_bias = true;
}

static void read_mistral(struct translation *t, struct decoder *decoder)
{
    read_window_of_all(t, decoder);
    read_dense(t, decoder);
}

static void read_llama(struct translation *t, struct decoder *decoder)
{
    decoder->dense_bias = read_flag(t, "mlp_bias", false);
    read_dense(t, decoder);
}

static void read_granite(struct translation *t, struct decoder *decoder)
{
    read_multipliers(t, decoder);
    read_llama(t, decoder);
}

/* ---- the table ---------------------------------------------------------------------------- */

static const struct difference DIFFERENCES[] = {
    {"olmoe", 1e-5, {1e4, 1, false}, read_olmoe},
    {"qwen3_moe", 1e-6, {1e4, 1, false}, read_qwen3_moe},
    {"qwen2_moe", 1e-6, {1e4, 1, false}, read_qwen2_moe},
    {"mixtral", 1e-5, {1e6, 1, false}, read_mixtral},
    {"granitemoe", 1e-6, {1e4, 1, false}, read_granite_moe},
    {"granitemoeshared", 1e-6, {1e4, 1, false}, read_granite_shared},
    {"phimoe", 1e-5, {1e6, 1, false}, read_phimoe},
    {"ernie4_5_moe", 1e-5, {5e5, 1, true}, read_ernie},
    {"glm4_moe", 1e-5, {1e4, 0.5, false}, read_glm4_moe},
    {"hunyuan_v1_moe", 1e-5, {1e4, 1, false}, read_hunyuan},
    {"minimax_m2", 1e-6, {5e6, 1, false}, read_minimax},
    {"lfm2_moe", 1e-5, {1e6, 1, false}, read_lfm2},
    {"qwen2", 1e-6, {1e4, 1, false}, read_qwen2},
    {"mistral", 1e-6, {1e4, 1, false}, read_mistral},
    {"qwen3", 1e-6, {1e4, 1, false}, read_qwen3},
    {"llama", 1e-6, {1e4, 1, false}, read_llama},
    {"granite", 1e-6, {1e4, 1, false}, read_granite},
};

json_t *llama_translate(struct translation *t)
{
    struct decoder decoder = {0};
    const struct difference *difference = DIFFERENCES;
    while (strcmp(difference->model_type, t->family->name) != 0)
        difference++;
    decoder_read(t, &decoder, difference->eps);
    difference->read(t, &decoder);
    struct rope_defaults rope = difference->rope;
    if (difference->read == read_minimax) /* an older key for the share of a head that turns */
        rope.partial =
            (double)read_size(t, "rotary_dim", decoder.head_dim) / (double)decoder.head_dim;
    decoder.rotary = rope_translate(t, &rope, decoder.head_dim, &decoder.context);
    json_t *config = translation_failed(t) ? NULL : decoder_translate(t, &decoder);
    family_decoder_close(&decoder);
    return config;
}
