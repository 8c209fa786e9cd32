/* The layers of a decoder in moed's own config, and views with the names that they ask for. */
#include "core/family/decoder.h"

#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "core/text.h"

const struct decoder_names decoder_names = {
    .attention_norm = "input_layernorm",
    .feed_forward_norm = "post_attention_layernorm",
    .q_norm = "q_norm",
    .k_norm = "k_norm",
    .out = "o_proj",
    .dense = "mlp",
    .moe = "mlp",
    .gate = "gate",
    .shared = "mlp.shared_experts",
    .gate_proj = "gate_proj",
    .up_proj = "up_proj",
    .down_proj = "down_proj",
    .final_norm = "model.norm",
};

/* As many layers as no published model has. */
enum { MAX_DECODER_LAYERS = 1024 };

void decoder_read(struct translation *t, struct decoder *decoder, double eps)
{
    decoder->names = decoder_names;
    decoder->vocabulary = read_size(t, "vocab_size", 0);
    decoder->hidden = read_size(t, "hidden_size", 0);
    decoder->layer_count = read_size(t, "num_hidden_layers", 0);
    decoder->heads = read_size(t, "num_attention_heads", 0);
    decoder->kv_heads = read_size(t, "num_key_value_heads", decoder->heads);
    decoder->head_dim = read_size(
        t, "head_dim", decoder->hidden >= decoder->heads ? decoder->hidden / decoder->heads : 1);
    decoder->context = read_size(t, "max_position_embeddings", 0);
    decoder->eps = read_real(t, "rms_norm_eps", eps);
    decoder->embedding_scale = decoder->residual_scale = decoder->logits_scale = 1;
    decoder->routed_scale = 1;
    decoder->attention = decoder_attention;
    decoder->add_experts = decoder_add_experts;
    read_only(t, "hidden_act", "silu");
    if (!translation_failed(t) && decoder->layer_count > MAX_DECODER_LAYERS)
        config_error(t->config, "num_hidden_layers", t->err, "more than %d", MAX_DECODER_LAYERS);
    t->bare = !is_stored(t, "model.embed_tokens.weight") && is_stored(t, "embed_tokens.weight");
    if (translation_failed(t))
        decoder->layer_count = 0;
    decoder->layers = xcalloc(decoder->layer_count + 1, sizeof *decoder->layers);
}

void decoder_read_experts(struct translation *t, struct decoder *decoder, const char *count,
                          const char *top_k, const char *size)
{
    decoder->expert_count = read_size(t, count, 0);
    decoder->top_k = read_size(t, top_k, 0);
    decoder->expert_size = read_size(t, size, 0);
}

int *decoder_read_types(struct translation *t, const struct decoder *decoder, const char *key,
                        const char *const names[])
{
    const char **list = NULL;
    size_t count = 0;
    if (translation_failed(t) || config_texts(t->config, key, &list, &count, t->err) != 0)
        return NULL;
    int *types = xcalloc(count, sizeof *types);
    if (count != decoder->layer_count)
        config_error(t->config, key, t->err, "%zu %s for %zu layer%s", count,
                     count == 1 ? "entry" : "entries", decoder->layer_count,
                     text_s(decoder->layer_count));
    for (size_t i = 0; i < count && !translation_failed(t); i++) {
        while (names[types[i]] && strcmp(names[types[i]], list[i]) != 0)
            types[i]++;
        if (!names[types[i]])
            config_error(t->config, key, t->err, "\"%.40s\" is not supported", list[i]);
    }
    free(list);
    if (!translation_failed(t))
        return types;
    free(types);
    return NULL;
}

void decoder_read_windows(struct translation *t, struct decoder *decoder, size_t window)
{
    static const char *const names[] = {"full_attention", "sliding_attention", NULL};
    int *types = config_has(t->config, "layer_types")
                     ? decoder_read_types(t, decoder, "layer_types", names)
                     : NULL;
    for (size_t i = 0; types && i < decoder->layer_count; i++)
        decoder->layers[i].window = types[i] == 1 ? window : 0;
    free(types);
}

void decoder_read_first_dense(struct translation *t, struct decoder *decoder, const char *key,
                              int64_t otherwise)
{
    int64_t dense;
    if (translation_failed(t) ||
        config_integer(t->config, key, otherwise, within(0, INT32_MAX), &dense, t->err) != 0)
        return;
    for (size_t i = 0; i < decoder->layer_count; i++)
        decoder->layers[i].sparse = i >= (size_t)dense;
}

void family_decoder_close(struct decoder *decoder)
{
    free(decoder->layers);
    json_decref(decoder->rotary);
    json_decref(decoder->bends);
}

/* ---- small pieces of a config ------------------------------------------------------------- */

static json_t *scale_layer(double value)
{
    return json_pack("{s:s, s:f}", "op", "scale", "value", value);
}

static json_t *linear_layer(const char *name)
{
    return json_pack("{s:s, s:s}", "op", "linear", "name", name);
}

static json_t *norm_layer(struct translation *t, const struct decoder *decoder, const char *name,
                          const char *from)
{
    add_vector(t, named("%s.weight", name).text, named("%s.weight", from).text, decoder->hidden);
    if (decoder->centred)
        add_vector(t, named("%s.bias", name).text, named("%s.bias", from).text, decoder->hidden);
    return json_pack("{s:s, s:s, s:f}", "op", decoder->centred ? "layer_norm" : "rms_norm", "name",
                     name, "eps", decoder->eps);
}

/* x + scale * layers(x) */
static void append_residual(const struct decoder *decoder, json_t *list, json_t *layers)
{
    if (decoder->residual_scale != 1)
        json_array_append_new(layers, scale_layer(decoder->residual_scale));
    json_array_append_new(list, json_pack("{s:s, s:o}", "op", "residual", "layers", layers));
}

/* ---- attention ---------------------------------------------------------------------------- */

static void add_attention(struct translation *t, const struct decoder *decoder, size_t layer,
                          const char *name)
{
    static const char *const projections[] = {"q_proj", "k_proj", "v_proj"};
    size_t q = decoder->heads * decoder->head_dim, kv = decoder->kv_heads * decoder->head_dim;
    const size_t rows[] = {q, kv, kv}, out[] = {decoder->hidden, q};
    struct tensor_name from = named("model.layers.%zu.self_attn", layer), weights[3], biases[3];
    for (size_t i = 0; i < 3; i++) {
        weights[i] = named("%s.%s.weight", from.text, projections[i]);
        biases[i] = named("%s.%s.bias", from.text, projections[i]);
    }
    add_stack(t, named("%s.in_proj_weight", name).text, weights, rows, decoder->hidden);
    if (decoder->qkv_bias)
        add_stack(t, named("%s.in_proj_bias", name).text, biases, rows, 1);
    add_linear(t, named("%s.out_proj", name).text,
               named("%s.%s", from.text, decoder->names.out).text, out, decoder->out_bias);
    if (decoder->sinks)
        add_vector(t, named("%s.sinks", name).text, named("%s.sinks", from.text).text,
                   decoder->heads);
    if (decoder->qk_norm == QK_NORM_NONE)
        return;
    bool all = decoder->qk_norm == QK_NORM_ALL;
    add_vector(t, named("%s.q_norm.weight", name).text,
               named("%s.%s.weight", from.text, decoder->names.q_norm).text,
               all ? q : decoder->head_dim);
    add_vector(t, named("%s.k_norm.weight", name).text,
               named("%s.%s.weight", from.text, decoder->names.k_norm).text,
               all ? kv : decoder->head_dim);
}

json_t *decoder_attention(struct translation *t, const struct decoder *decoder, size_t layer)
{
    static const char *const norms[] = {"none", "head", "all"};
    struct tensor_name name = named("layers.%zu.attention", layer);
    json_t *json =
        json_pack("{s:s, s:s, s:s, s:I, s:I, s:I}", "op", "attention", "name", name.text, "over",
                  "sequence", "heads", (json_int_t)decoder->heads, "kv_heads",
                  (json_int_t)decoder->kv_heads, "head_dim", (json_int_t)decoder->head_dim);
    add_attention(t, decoder, layer, name.text);
    if (decoder->qk_norm != QK_NORM_NONE) {
        json_object_set_new(json, "qk_norm", json_string(norms[decoder->qk_norm]));
        json_object_set_new(json, "eps", json_real(decoder->eps));
    }
    if (decoder->normalizes_late)
        json_object_set_new(json, "qk_norm_late", json_true());
    if (t->bare)
        json_object_set_new(json, "keep", json_false());
    if (decoder->clip != 0)
        json_object_set_new(json, "clip", json_real(decoder->clip));
    if (decoder->attention_scale != 0)
        json_object_set_new(json, "scale", json_real(decoder->attention_scale));
    if (decoder->layers[layer].window)
        json_object_set_new(json, "window",
                            json_integer((json_int_t)decoder->layers[layer].window));
    if (decoder->rotary)
        json_object_set(json, "rotary", decoder->rotary);
    return json;
}

/* ---- feed-forward networks and experts ---------------------------------------------------- */

/* [glu, linear], whose tensors are below `to`. */
static json_t *network_layers(const char *glu, const char *down, json_t *bends)
{
    json_t *layer = json_pack("{s:s, s:s}", "op", "glu", "name", glu);
    if (bends)
        json_object_update(layer, bends);
    return json_pack("[o, o]", layer, linear_layer(down));
}

static void add_network(struct translation *t, const struct decoder *decoder, const char *to,
                        const char *from, size_t size, bool bias)
{
    const struct decoder_names *names = &decoder->names;
    const size_t up[] = {size, decoder->hidden}, down[] = {decoder->hidden, size};
    add_linear(t, named("%s.glu.gate", to).text, named("%s.%s", from, names->gate_proj).text, up,
               bias);
    add_linear(t, named("%s.glu.up", to).text, named("%s.%s", from, names->up_proj).text, up, bias);
    add_linear(t, named("%s.down", to).text, named("%s.%s", from, names->down_proj).text, down,
               bias);
}

void decoder_add_experts(struct translation *t, const struct decoder *decoder, size_t layer)
{
    struct tensor_name from = named("model.layers.%zu.%s.experts", layer, decoder->names.moe);
    struct tensor_name fused = named("%s.gate_up_proj", from.text);
    if (is_stored(t, fused.text)) {
        decoder_add_slabs(t, decoder, layer, fused.text, named("%s.down_proj", from.text).text);
        return;
    }
    for (size_t e = 0; e < decoder->expert_count && !translation_failed(t); e++)
        add_network(t, decoder, named("layers.%zu.moe.experts.%zu", layer, e).text,
                    named("%s.%zu", from.text, e).text, decoder->expert_size, false);
}

void decoder_add_slabs(struct translation *t, const struct decoder *decoder, size_t layer,
                       const char *gate_up, const char *down)
{
    size_t hidden = decoder->hidden, size = decoder->expert_size;
    const size_t up_dims[] = {decoder->expert_count, 2 * size, hidden};
    const size_t down_dims[] = {decoder->expert_count, hidden, size};
    struct view_part up = {.source = stored(t, gate_up, 3, up_dims),
                           .rows = size,
                           .columns = hidden,
                           .row_stride = hidden,
                           .column_stride = 1};
    struct view_part out = {.source = stored(t, down, 3, down_dims),
                            .rows = hidden,
                            .columns = size,
                            .row_stride = size,
                            .column_stride = 1};
    for (size_t e = 0; e < decoder->expert_count && !translation_failed(t); e++) {
        struct tensor_name to = named("layers.%zu.moe.experts.%zu", layer, e);
        add_part(t, named("%s.glu.gate.weight", to.text).text, 2, &up);
        up.first += size * hidden;
        add_part(t, named("%s.glu.up.weight", to.text).text, 2, &up);
        up.first += size * hidden;
        add_part(t, named("%s.down.weight", to.text).text, 2, &out);
        out.first += size * hidden;
    }
}

static json_t *gate_json(const struct decoder *decoder)
{
    json_t *gate = json_pack("{s:[o], s:s, s:I, s:s, s:f}", "layers", linear_layer("out"), "score",
                             decoder->score, "top_k", (json_int_t)decoder->top_k, "normalize",
                             decoder->normalize, "scale", decoder->routed_scale);
    if (decoder->jitter != 0)
        json_object_set_new(gate, "jitter", json_real(decoder->jitter));
    if (decoder->groups_by)
        json_object_set_new(gate, "groups",
                            json_pack("{s:I, s:I, s:s}", "count", (json_int_t)decoder->groups,
                                      "keep", (json_int_t)decoder->groups_kept, "by",
                                      decoder->groups_by));
    return gate;
}

static void add_gate(struct translation *t, const struct decoder *decoder, size_t layer)
{
    const struct decoder_names *names = &decoder->names;
    const size_t size[] = {decoder->expert_count, decoder->hidden};
    struct tensor_name to = named("layers.%zu.moe.gate", layer);
    struct tensor_name from = named("model.layers.%zu.%s", layer, names->moe);
    add_linear(t, named("%s.out", to.text).text, named("%s.%s", from.text, names->gate).text, size,
               decoder->gate_bias);
    struct tensor_name bias =
        named("%s.%s", from.text, names->select_bias ? names->select_bias : "");
    const size_t dims[] = {1, decoder->expert_count};
    const struct tensor *found = find_tensor(t, bias.text);
    bool nested = found && found->rank == 2; /* ERNIE's is [1, experts] */
    if (!names->select_bias)
        return;
    const struct view_part part = {.source = stored(t, bias.text, nested ? 2 : 1, dims + !nested),
                                   .rows = 1,
                                   .columns = decoder->expert_count,
                                   .column_stride = 1};
    add_part(t, named("%s.select_bias", to.text).text, 1, &part);
}

static void add_shared(struct translation *t, const struct decoder *decoder, size_t layer,
                       json_t *json)
{
    struct tensor_name to = named("layers.%zu.moe.shared", layer);
    struct tensor_name from = named("model.layers.%zu.%s", layer, decoder->names.shared);
    struct tensor_name slab = named("%s.input_linear.weight", from.text); /* Granite's */
    const size_t size = decoder->shared_size, hidden = decoder->hidden;
    const size_t dims[] = {2 * size, hidden};
    json_t *layers = network_layers("glu", "down", NULL);
    if (is_stored(t, slab.text)) {
        struct view_part part = {.source = stored(t, slab.text, 2, dims),
                                 .rows = size,
                                 .columns = hidden,
                                 .row_stride = hidden,
                                 .column_stride = 1};
        add_part(t, named("%s.glu.gate.weight", to.text).text, 2, &part);
        part.first = size * hidden;
        add_part(t, named("%s.glu.up.weight", to.text).text, 2, &part);
        add_matrix(t, named("%s.down.weight", to.text).text,
                   named("%s.output_linear.weight", from.text).text, hidden, size);
    } else {
        add_network(t, decoder, to.text, from.text, size, decoder->shared_bias);
    }
    if (decoder->shared_gate)
        add_matrix(t, named("layers.%zu.moe.shared_gate.weight", layer).text,
                   named("%s_gate.weight", from.text).text, 1, hidden);
    json_object_set_new(json, "shared",
                        json_pack("{s:o, s:s}", "layers", layers, "gate",
                                  decoder->shared_gate ? "sigmoid" : "none"));
}

static json_t *moe_layer(struct translation *t, const struct decoder *decoder, size_t layer)
{
    json_t *json = json_pack("{s:s, s:s, s:o, s:{s:I, s:o}}", "op", "moe", "name",
                             named("layers.%zu.moe", layer).text, "gate", gate_json(decoder),
                             "experts", "count", (json_int_t)decoder->expert_count, "layers",
                             network_layers("glu", "down", decoder->bends));
    add_gate(t, decoder, layer);
    decoder->add_experts(t, decoder, layer);
    if (decoder->shared_size)
        add_shared(t, decoder, layer, json);
    return json;
}

static json_t *feed_forward(struct translation *t, const struct decoder *decoder, size_t layer)
{
    struct tensor_name to = named("layers.%zu", layer);
    if (decoder->layers[layer].sparse)
        return json_pack("[o]", moe_layer(t, decoder, layer));
    add_network(t, decoder, to.text, named("model.layers.%zu.%s", layer, decoder->names.dense).text,
                decoder->dense_size, decoder->dense_bias);
    return network_layers(named("%s.glu", to.text).text, named("%s.down", to.text).text, NULL);
}

/* ---- the whole ---------------------------------------------------------------------------- */

static void append_layer(struct translation *t, const struct decoder *decoder, size_t layer,
                         json_t *list)
{
    const struct decoder_names *names = &decoder->names;
    struct tensor_name from = named("model.layers.%zu", layer);
    json_t *norm = norm_layer(t, decoder, named("layers.%zu.norm1", layer).text,
                              named("%s.%s", from.text, names->attention_norm).text);
    json_t *attention = decoder->attention(t, decoder, layer);
    append_residual(decoder, list, json_pack("[o, o]", norm, attention));
    norm = norm_layer(t, decoder, named("layers.%zu.norm2", layer).text,
                      named("%s.%s", from.text, names->feed_forward_norm).text);
    json_t *layers = feed_forward(t, decoder, layer);
    json_array_insert_new(layers, 0, norm);
    append_residual(decoder, list, layers);
}

static json_t *input_json(struct translation *t, const struct decoder *decoder)
{
    json_t *layers = json_pack("[{s:s, s:s}]", "op", "embedding", "name", "embed");
    add_matrix(t, "embed.weight", "model.embed_tokens.weight", decoder->vocabulary,
               decoder->hidden);
    if (decoder->embedding_scale != 1)
        json_array_append_new(layers, scale_layer(decoder->embedding_scale));
    return json_pack("{s:s, s:[], s:I, s:o}", "name", "tokens", "shape", "categories",
                     (json_int_t)decoder->vocabulary, "layers", layers);
}

/* A trunk alone gives a vector for every token: an embedder. A tied head reads the table of the
 * embedding, unless the file has another one. */
static json_t *output_json(struct translation *t, const struct decoder *decoder)
{
    const size_t size[] = {decoder->vocabulary, decoder->hidden};
    bool tied = decoder->tied && !is_stored(t, "lm_head.weight");
    json_t *norm = norm_layer(t, decoder, "norm", decoder->names.final_norm);
    if (t->bare)
        return json_pack("{s:s, s:[o]}", "name", "embeddings", "layers", norm);
    json_t *layers = json_pack("[o, o]", norm, linear_layer("lm_head"));
    add_matrix(t, "lm_head.weight", tied ? "model.embed_tokens.weight" : "lm_head.weight", size[0],
               size[1]);
    if (decoder->head_bias)
        add_vector(t, "lm_head.bias", "lm_head.bias", decoder->vocabulary);
    if (decoder->logits_scale != 1)
        json_array_append_new(layers, scale_layer(decoder->logits_scale));
    return json_pack("{s:s, s:o}", "name", "logits", "layers", layers);
}

static void keep_table(struct translation *t)
{
    struct tensor *table = safetensors_find(t->tensors, "model.embed_tokens.weight");
    if (table)
        table->kept = true;
}

static void ignore_further_layers(struct translation *t, const struct decoder *decoder)
{
    size_t count = 0;
    if (!translation_failed(t) && config_has(t->config, "num_nextn_predict_layers")) {
        int64_t value = 0;
        if (config_integer(t->config, "num_nextn_predict_layers", 0, within(0, 64), &value,
                           t->err) == 0)
            count = (size_t)value;
    }
    for (size_t i = 0; i < count; i++)
        ignore_prefix(t, named("model.layers.%zu.", decoder->layer_count + i).text);
}

json_t *decoder_translate(struct translation *t, const struct decoder *decoder)
{
    json_t *list = json_array();
    if (decoder->further_layers)
        ignore_further_layers(t, decoder);
    read_quantization(t);
    read_done(t);
    if (t->bare && decoder->attention != decoder_attention)
        config_error(t->config, NULL, t->err,
                     "its tensors have no head, and its layers keep more "
                     "of a text than embeddings need");
    if (decoder->tied && !t->bare)
        keep_table(t);
    json_t *input = input_json(t, decoder);
    for (size_t i = 0; i < decoder->layer_count && !translation_failed(t); i++)
        append_layer(t, decoder, i, list);
    json_t *output = output_json(t, decoder);
    ignore_suffix(t, ".rotary_emb.inv_freq");
    return json_pack("{s:s, s:i, s:I, s:[o], s:o, s:[o]}", "model_type", "moed", "format_version",
                     3, "context", (json_int_t)decoder->context, "inputs", input, "layers", list,
                     "outputs", output);
}
