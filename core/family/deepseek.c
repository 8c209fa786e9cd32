/* deepseek_v2, deepseek_v3 and glm4_moe_lite: decoders with latent attention. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/family/decoder.h"
#include "core/family/families.h"

/* What moed's latent_attention is told; core/layers/latent.c explains the words. */
struct latent {
    size_t plain, turned, latent, value, query_latent; /* query_latent 0: there is none */
    double scale;
    bool bias;
};

/* ---- attention ---------------------------------------------------------------------------- */

/* Scores get YaRN's magnitude twice, where the config has "mscale_all_dim". */
static double score_scale(struct translation *t, const struct latent *latent)
{
    double scale = 1 / sqrt((double)(latent->plain + latent->turned));
    const char *key = config_has(t->config, "rope_parameters") ? "rope_parameters" : "rope_scaling";
    const json_t *rope = json_object_get(t->config->json, key);
    const json_t *type = json_object_get(rope, "rope_type");
    const char *name = json_string_value(type ? type : json_object_get(rope, "type"));
    double all = json_number_value(json_object_get(rope, "mscale_all_dim"));
    struct config_node own;
    double factor = 1;
    if (!name || strcmp(name, "default") == 0 || all == 0 || translation_failed(t) ||
        config_object(t->config, key, &own, t->err) != 0 ||
        config_real(&own, "factor", NULL, &factor, t->err) != 0)
        return scale;
    double once = rope_magnitude(factor, all);
    return scale * once * once;
}

static void read_latent(struct translation *t, struct latent *latent)
{
    latent->plain = read_size(t, "qk_nope_head_dim", 0);
    latent->turned = read_size(t, "qk_rope_head_dim", 0);
    latent->latent = read_size(t, "kv_lora_rank", 0);
    latent->value = read_size(t, "v_head_dim", 0);
    latent->query_latent =
        config_has(t->config, "q_lora_rank") ? read_size(t, "q_lora_rank", 0) : 0;
    config_has(t->config, "qk_head_dim"); /* the sum of the first two */
    latent->bias = read_flag(t, "attention_bias", false);
    latent->scale = score_scale(t, latent);
}

/* The two matrices of every head, side by side in one: [heads, plain + value, latent]. */
static void add_heads(struct translation *t, const struct decoder *decoder, const char *to,
                      const char *from)
{
    const struct latent *latent = decoder->latent;
    size_t step = (latent->plain + latent->value) * latent->latent;
    struct view_part key =
        whole_matrix(t, from, decoder->heads * (latent->plain + latent->value), latent->latent);
    struct view_part value = key;
    key.rows = latent->latent;
    key.columns = latent->plain;
    key.row_stride = 1;
    key.column_stride = latent->latent;
    value.rows = latent->value;
    for (size_t h = 0; h < decoder->heads && !translation_failed(t); h++) {
        key.first = h * step;
        value.first = h * step + latent->plain * latent->latent;
        add_part(t, named("%s.key_up.%zu.weight", to, h).text, 2, &key);
        add_part(t, named("%s.value_up.%zu.weight", to, h).text, 2, &value);
    }
}

static void add_queries(struct translation *t, const struct decoder *decoder, const char *to,
                        const char *from)
{
    const struct latent *latent = decoder->latent;
    size_t queries = decoder->heads * (latent->plain + latent->turned);
    const size_t down[] = {latent->query_latent, decoder->hidden};
    if (!latent->query_latent) {
        add_matrix(t, named("%s.q.weight", to).text, named("%s.q_proj.weight", from).text, queries,
                   decoder->hidden);
        return;
    }
    add_linear(t, named("%s.q_down", to).text, named("%s.q_a_proj", from).text, down, latent->bias);
    add_vector(t, named("%s.q_norm.weight", to).text, named("%s.q_a_layernorm.weight", from).text,
               latent->query_latent);
    add_matrix(t, named("%s.q.weight", to).text, named("%s.q_b_proj.weight", from).text, queries,
               latent->query_latent);
}

static json_t *attention_layer(struct translation *t, const struct decoder *decoder, size_t layer)
{
    const struct latent *latent = decoder->latent;
    struct tensor_name to = named("layers.%zu.attention", layer);
    struct tensor_name from = named("model.layers.%zu.self_attn", layer);
    const size_t down[] = {latent->latent + latent->turned, decoder->hidden};
    const size_t out[] = {decoder->hidden, decoder->heads * latent->value};
    add_queries(t, decoder, to.text, from.text);
    add_linear(t, named("%s.kv_down", to.text).text, named("%s.kv_a_proj_with_mqa", from.text).text,
               down, latent->bias);
    add_vector(t, named("%s.kv_norm.weight", to.text).text,
               named("%s.kv_a_layernorm.weight", from.text).text, latent->latent);
    add_heads(t, decoder, to.text, named("%s.kv_b_proj.weight", from.text).text);
    add_linear(t, named("%s.out_proj", to.text).text, named("%s.o_proj", from.text).text, out,
               latent->bias);
    /* The norms' eps is that of the class, whatever rms_norm_eps says. */
    json_t *json = json_pack(
        "{s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:O}", "op", "latent_attention", "name",
        to.text, "heads", (json_int_t)decoder->heads, "plain", (json_int_t)latent->plain, "turned",
        (json_int_t)latent->turned, "latent", (json_int_t)latent->latent, "value",
        (json_int_t)latent->value, "scale", latent->scale, "eps", 1e-6, "rotary", decoder->rotary);
    if (latent->query_latent)
        json_object_set_new(json, "query_latent", json_integer((json_int_t)latent->query_latent));
    return json;
}

/* ---- experts ------------------------------------------------------------------------------ */

static void read_experts(struct translation *t, struct decoder *decoder)
{
    decoder_read_experts(t, decoder, "n_routed_experts", "num_experts_per_tok",
                         "moe_intermediate_size");
    decoder->shared_size = read_size(t, "n_shared_experts", 1) * decoder->expert_size;
    decoder->dense_size = read_size(t, "intermediate_size", 0);
    decoder->routed_scale = read_real(t, "routed_scaling_factor", 1);
    decoder->tied = read_flag(t, "tie_word_embeddings", false);
    decoder->further_layers = true;
    read_only_size(t, "moe_layer_freq", 1);
    config_has(t->config, "ep_size"); /* of how the training was spread */
}

/* "first_k_dense_replace", or the newer list. */
static void read_dense_layers(struct translation *t, struct decoder *decoder, int64_t otherwise)
{
    static const char *const names[] = {"dense", "sparse", NULL};
    decoder_read_first_dense(t, decoder, "first_k_dense_replace", otherwise);
    int *types = config_has(t->config, "mlp_layer_types")
                     ? decoder_read_types(t, decoder, "mlp_layer_types", names)
                     : NULL;
    for (size_t i = 0; types && i < decoder->layer_count; i++)
        decoder->layers[i].sparse = types[i] == 1;
    free(types);
}

static void read_v2(struct translation *t, struct decoder *decoder)
{
    static const char *const methods[] = {"greedy", "group_limited_greedy", NULL};
    int method = 0;
    read_experts(t, decoder);
    read_dense_layers(t, decoder, 0);
    read_only(t, "scoring_func", "softmax");
    read_only_flag(t, "norm_topk_prob", false);
    read_only_flag(t, "mlp_bias", false);
    decoder->score = "softmax";
    decoder->normalize = "none";
    if (translation_failed(t) ||
        config_choice(t->config, "topk_method", methods, 0, &method, t->err) != 0)
        return;
    config_has(t->config, "n_group");
    config_has(t->config, "topk_group");
    if (method == 0)
        return;
    decoder->groups = read_size(t, "n_group", 0);
    decoder->groups_kept = read_size(t, "topk_group", 0);
    decoder->groups_by = "max";
}

static void read_v3(struct translation *t, struct decoder *decoder, int64_t dense)
{
    read_experts(t, decoder);
    read_dense_layers(t, decoder, dense);
    read_only(t, "scoring_func", "sigmoid");
    read_only(t, "topk_method", "noaux_tc");
    decoder->names.select_bias = "gate.e_score_correction_bias";
    decoder->score = "sigmoid";
    decoder->normalize = read_flag(t, "norm_topk_prob", true) ? "sum" : "none";
    decoder->groups = read_size(t, "n_group", 1);
    decoder->groups_kept = read_size(t, "topk_group", 1);
    decoder->groups_by = decoder->groups > 1 ? "top2" : NULL;
}

json_t *deepseek_translate(struct translation *t)
{
    struct decoder decoder = {0};
    struct latent latent = {0};
    struct rope_defaults rope = {10000, 1, true};
    bool v2 = strcmp(t->family->name, "deepseek_v2") == 0;
    bool lite = strcmp(t->family->name, "glm4_moe_lite") == 0;
    decoder_read(t, &decoder, lite ? 1e-5 : 1e-6);
    if (v2)
        read_v2(t, &decoder);
    else
        read_v3(t, &decoder, lite ? 1 : 3);
    rope.interleaved = v2 || read_flag(t, "rope_interleave", true);
    read_latent(t, &latent);
    decoder.latent = &latent;
    decoder.attention = attention_layer;
    decoder.rotary = rope_translate(t, &rope, latent.turned, &decoder.context);
    json_t *config = translation_failed(t) ? NULL : decoder_translate(t, &decoder);
    family_decoder_close(&decoder);
    return config;
}
