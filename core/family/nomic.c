/* nomic_bert with experts (nomic-embed-text-v2-moe): an encoder, whose tokens see each other.
 *
 *     x = norm(word + type);  x = norm1(x + attention(x)), x = norm2(x + feed_forward(x))
 *
 * Every n-th feed-forward network has plain experts, and one bias for all of them after they are
 * combined. The output is a vector for every token; a text's is their mean. */
#include "core/family/families.h"
#include "core/family/translation.h"

struct encoder {
    size_t vocabulary, types, hidden, heads, layers, inner, context;
    size_t experts, top_k, every;
    double eps, theta;
    bool qkv_bias, up_bias, down_bias;
};

/* Keys with one value that is understood, and keys of training. */
static void read_fixed(struct translation *t)
{
    static const char *const flags[] = {"prenorm",
                                        "parallel_block",
                                        "parallel_block_tied_norm",
                                        "causal",
                                        "rotary_emb_interleaved",
                                        "use_rms_norm",
                                        "expert_choice_router",
                                        "moe_normalize_expert_weights",
                                        "scale_attn_by_inverse_layer_idx"};
    static const char *const of_training[] = {"ffn_div",
                                              "fused_bias_fc",
                                              "fused_dropout_add_ln",
                                              "dense_seq_output",
                                              "use_flash_attn",
                                              "use_xentropy",
                                              "pad_vocab_size_multiple",
                                              "max_trained_positions",
                                              "moe_impl",
                                              "moe_resid_pdrop",
                                              "reorder_and_upcast_attn",
                                              "tie_word_embeddings",
                                              "summary_type",
                                              "summary_use_proj",
                                              "summary_activation",
                                              "summary_first_dropout",
                                              "summary_proj_to_labels"};
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
        read_only_flag(t, flags[i], false);
    for (size_t i = 0; i < sizeof of_training / sizeof *of_training; i++)
        config_has(t->config, of_training[i]);
    read_only_flag(t, "scale_attn_weights", true);
    read_only(t, "activation_function", "gelu");
    if (read_real(t, "rotary_emb_fraction", 1) != 1 ||
        (config_has(t->config, "num_shared_experts") &&
         json_integer_value(json_object_get(t->config->json, "num_shared_experts")) != 0))
        error_set(t->err, ERROR_INVALID,
                  "config.json: rotary_emb_fraction must be 1 and num_shared_experts 0");
}

static void read_encoder(struct translation *t, struct encoder *encoder)
{
    read_fixed(t);
    encoder->vocabulary = read_size(t, "vocab_size", 0);
    encoder->types = read_size(t, "type_vocab_size", 0);
    encoder->hidden = read_size(t, "n_embd", 0);
    encoder->heads = read_size(t, "n_head", 0);
    encoder->layers = read_size(t, "n_layer", 0);
    encoder->inner = read_size(t, "n_inner", 0);
    encoder->context = read_size(t, "n_positions", 0);
    encoder->experts = read_size(t, "num_experts", 0);
    encoder->top_k = read_size(t, "moe_top_k", 0);
    encoder->every = read_size(t, "moe_every_n_layers", 0);
    encoder->eps = read_real(t, "layer_norm_epsilon", 1e-5);
    encoder->theta = read_real(t, "rotary_emb_base", 10000);
    encoder->qkv_bias = read_flag(t, "qkv_proj_bias", true);
    encoder->up_bias = read_flag(t, "mlp_fc1_bias", true);
    encoder->down_bias = read_flag(t, "mlp_fc2_bias", true);
}

static json_t *named_layer(const char *op, const char *name)
{
    return json_pack("{s:s, s:s}", "op", op, "name", name);
}

static json_t *norm_layer(struct translation *t, const struct encoder *encoder, const char *to,
                          const char *from)
{
    add_vector(t, named("%s.weight", to).text, named("%s.weight", from).text, encoder->hidden);
    add_vector(t, named("%s.bias", to).text, named("%s.bias", from).text, encoder->hidden);
    return json_pack("{s:s, s:s, s:f}", "op", "layer_norm", "name", to, "eps", encoder->eps);
}

static json_t *input_json(struct translation *t, const struct encoder *encoder)
{
    const size_t types[] = {encoder->types, encoder->hidden};
    const struct view_part type = {
        .source = stored(t, "embeddings.token_type_embeddings.weight", 2, types),
        .rows = 1,
        .columns = encoder->hidden,
        .row_stride = encoder->hidden,
        .column_stride = 1};
    add_matrix(t, "embed.weight", "embeddings.word_embeddings.weight", encoder->vocabulary,
               encoder->hidden);
    add_part(t, "type.weight", 1, &type);
    return json_pack("{s:s, s:[], s:I, s:[o, o, o]}", "name", "tokens", "shape", "categories",
                     (json_int_t)encoder->vocabulary, "layers", named_layer("embedding", "embed"),
                     named_layer("add", "type"), norm_layer(t, encoder, "norm", "emb_ln"));
}

static json_t *attention_json(struct translation *t, const struct encoder *encoder, size_t layer)
{
    size_t hidden = encoder->hidden;
    struct tensor_name to = named("layers.%zu.attention", layer);
    struct tensor_name from = named("encoder.layers.%zu.attn", layer);
    const size_t out[] = {hidden, hidden};
    add_matrix(t, named("%s.in_proj_weight", to.text).text, named("%s.Wqkv.weight", from.text).text,
               3 * hidden, hidden);
    if (encoder->qkv_bias)
        add_vector(t, named("%s.in_proj_bias", to.text).text, named("%s.Wqkv.bias", from.text).text,
                   3 * hidden);
    add_linear(t, named("%s.out_proj", to.text).text, named("%s.out_proj", from.text).text, out,
               encoder->qkv_bias);
    return json_pack("{s:s, s:s, s:s, s:b, s:I, s:{s:f}}", "op", "attention", "name", to.text,
                     "over", "sequence", "causal", 0, "heads", (json_int_t)encoder->heads, "rotary",
                     "theta", encoder->theta);
}

static json_t *network(struct translation *t, const struct encoder *encoder, size_t layer)
{
    struct tensor_name up = named("layers.%zu.up", layer), down = named("layers.%zu.down", layer);
    struct tensor_name from = named("encoder.layers.%zu.mlp", layer);
    const size_t wide[] = {encoder->inner, encoder->hidden};
    const size_t narrow[] = {encoder->hidden, encoder->inner};
    add_linear(t, up.text, named("%s.fc1", from.text).text, wide, encoder->up_bias);
    add_linear(t, down.text, named("%s.fc2", from.text).text, narrow, encoder->down_bias);
    return json_pack("[o, {s:s}, o]", named_layer("linear", up.text), "op", "gelu",
                     named_layer("linear", down.text));
}

/* w1 [experts * inner, hidden], and w2 likewise: an expert's second matrix is transposed. */
static void add_experts(struct translation *t, const struct encoder *encoder, size_t layer)
{
    size_t hidden = encoder->hidden, inner = encoder->inner;
    struct tensor_name from = named("encoder.layers.%zu.mlp.experts", layer);
    const size_t dims[] = {encoder->experts * inner, hidden};
    struct view_part up = {.source = stored(t, named("%s.mlp.w1", from.text).text, 2, dims),
                           .rows = inner,
                           .columns = hidden,
                           .row_stride = hidden,
                           .column_stride = 1};
    struct view_part down = {.source = stored(t, named("%s.mlp.w2", from.text).text, 2, dims),
                             .rows = hidden,
                             .columns = inner,
                             .row_stride = 1,
                             .column_stride = hidden};
    for (size_t e = 0; e < encoder->experts && !translation_failed(t); e++) {
        up.first = down.first = e * inner * hidden;
        add_part(t, named("layers.%zu.moe.experts.%zu.up.weight", layer, e).text, 2, &up);
        add_part(t, named("layers.%zu.moe.experts.%zu.down.weight", layer, e).text, 2, &down);
    }
    add_vector(t, named("layers.%zu.bias.weight", layer).text, named("%s.bias", from.text).text,
               hidden);
}

static json_t *mixture(struct translation *t, const struct encoder *encoder, size_t layer)
{
    struct tensor_name name = named("layers.%zu.moe", layer);
    add_matrix(t, named("%s.gate.out.weight", name.text).text,
               named("encoder.layers.%zu.mlp.router.layer.weight", layer).text, encoder->experts,
               encoder->hidden);
    add_experts(t, encoder, layer);
    json_t *gate = json_pack("{s:[o], s:I}", "layers", named_layer("linear", "out"), "top_k",
                             (json_int_t)encoder->top_k);
    json_t *experts =
        json_pack("{s:I, s:[o, {s:s}, o]}", "count", (json_int_t)encoder->experts, "layers",
                  named_layer("linear", "up"), "op", "gelu", named_layer("linear", "down"));
    return json_pack("[{s:s, s:s, s:o, s:o}, o]", "op", "moe", "name", name.text, "gate", gate,
                     "experts", experts, named_layer("add", named("layers.%zu.bias", layer).text));
}

static void append_layer(struct translation *t, const struct encoder *encoder, size_t layer,
                         json_t *list)
{
    struct tensor_name from = named("encoder.layers.%zu", layer);
    bool sparse = layer % encoder->every == 1;
    json_array_append_new(list, json_pack("{s:s, s:[o]}", "op", "residual", "layers",
                                          attention_json(t, encoder, layer)));
    json_array_append_new(list, norm_layer(t, encoder, named("layers.%zu.norm1", layer).text,
                                           named("%s.norm1", from.text).text));
    json_array_append_new(list, json_pack("{s:s, s:o}", "op", "residual", "layers",
                                          (sparse ? mixture : network)(t, encoder, layer)));
    json_array_append_new(list, norm_layer(t, encoder, named("layers.%zu.norm2", layer).text,
                                           named("%s.norm2", from.text).text));
}

json_t *nomic_translate(struct translation *t)
{
    struct encoder encoder = {0};
    read_encoder(t, &encoder);
    read_done(t);
    if (translation_failed(t))
        return NULL;
    json_t *list = json_array(), *input = input_json(t, &encoder);
    for (size_t i = 0; i < encoder.layers && !translation_failed(t); i++)
        append_layer(t, &encoder, i, list);
    ignore_suffix(t, ".rotary_emb.inv_freq");
    return json_pack("{s:s, s:i, s:I, s:[o], s:o, s:{s:s}}", "model_type", "moed", "format_version",
                     3, "context", (json_int_t)encoder.context, "inputs", input, "layers", list,
                     "output", "name", "embeddings");
}
