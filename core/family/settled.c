/* Keys that published configs have beside those that say what is computed. */
#include <string.h>

#include "core/family/translation.h"

/* Of any family: how it was trained, how it is generated from, how transformers runs and saves it.
 */
static const char *const HARMLESS[] = {
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_name_or_path",
    "add_cross_attention",
    "architectures",
    "attention_dropout",
    "attn_pdrop",
    "auto_map",
    "aux_loss_alpha",
    "bad_words_ids",
    "begin_suppress_tokens",
    "bos_token_id",
    "chunk_size_feed_forward",
    "cross_attention_hidden_size",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "dtype",
    "early_stopping",
    "embd_pdrop",
    "encoder_no_repeat_ngram_size",
    "eod_token_id",
    "eos_token_id",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "hidden_dropout",
    "id2label",
    "initial_context_length",
    "initializer_range",
    "input_jitter_noise",
    "is_decoder",
    "is_encoder_decoder",
    "is_llama_config",
    "label2id",
    "length_penalty",
    "max_length",
    "min_length",
    "model_type",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_router_logits",
    "output_scores",
    "pad_token_id",
    "prefix",
    "pretraining_tp",
    "problem_type",
    "pruned_heads",
    "remove_invalid_values",
    "repetition_penalty",
    "resid_pdrop",
    "return_dict",
    "return_dict_in_generate",
    "router_aux_loss_coef",
    "routing_reference", /* of moed, which core/reference.h reads */
    "sep_token_id",
    "seq_aux",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tf_legacy_loss",
    "tie_encoder_decoder",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torch_dtype",
    "torchscript",
    "transformers_version",
    "typical_p",
    "unsloth_fixed",
    "unsloth_version",
    "use_bfloat16",
    "use_cache",
};

/* Of one family. Names that end with '*' begin so. `only` is JSON: what the key must be, because
 * anything else would change what is computed; NULL: it does not matter. */
static const struct settled {
    const char *family, *key, *only;
} SETTLED[] = {
    {"qwen2", "use_mrope", "false"},
    {"qwen3_moe", "qkv_bias", "false"},
    {"qwen3_moe", "shared_expert_intermediate_size", "0"},
    {"qwen3_moe", "use_qk_norm", "true"},
    {"llama", "rope_interleaved", "false"},
    {"nomic_bert", "add_pooling_layer", "false"},
    {"ernie4_5_moe", "is_quantized", "false"},
    {"ernie4_5_moe", "num_nextn_predict_layers", NULL},
    {"ernie4_5_moe", "use_rmsnorm", "true"},
    /* Vision, special tokens and classes have keys, but no tensors. */
    {"hunyuan_v1_moe", "add_classification_head", "false"},
    {"hunyuan_v1_moe", "anyres_*", NULL},
    {"hunyuan_v1_moe", "attention_head_dim", NULL},
    {"hunyuan_v1_moe", "cla_share_factor", NULL},
    {"hunyuan_v1_moe", "class_num", NULL},
    {"hunyuan_v1_moe", "dense_list", NULL},
    {"hunyuan_v1_moe", "group_limited_greedy", "false"},
    {"hunyuan_v1_moe", "im_*", NULL},
    {"hunyuan_v1_moe", "image_token_id", NULL},
    {"hunyuan_v1_moe", "mask_init_id", NULL},
    {"hunyuan_v1_moe", "moe_drop_tokens", "false"},
    {"hunyuan_v1_moe", "moe_layer_num_skipped", "0"},
    {"hunyuan_v1_moe", "moe_random_routing_dropped_token", NULL},
    {"hunyuan_v1_moe", "n_group", NULL},
    {"hunyuan_v1_moe", "norm_topk_prob", "true"},
    {"hunyuan_v1_moe", "norm_type", "\"rms\""},
    {"hunyuan_v1_moe", "num_media_embeds", NULL},
    {"hunyuan_v1_moe", "org_vocab_size", NULL},
    {"hunyuan_v1_moe", "pad_id", NULL},
    {"hunyuan_v1_moe", "pool_type", NULL},
    {"hunyuan_v1_moe", "position_embedding_xdrope", "false"},
    {"hunyuan_v1_moe", "routed_scaling_factor", NULL},
    {"hunyuan_v1_moe", "skip_cls_token", NULL},
    {"hunyuan_v1_moe", "text_*", NULL},
    {"hunyuan_v1_moe", "topk_group", NULL},
    {"hunyuan_v1_moe", "use_mixed_mlp_moe", "true"},
    {"hunyuan_v1_moe", "use_rotary_pos_emb", "true"},
    {"hunyuan_v1_moe", "video_*", NULL},
    {"hunyuan_v1_moe", "vit_*", NULL},
};

static bool is_harmless(const char *key)
{
    for (size_t i = 0; i < sizeof HARMLESS / sizeof *HARMLESS; i++)
        if (strcmp(key, HARMLESS[i]) == 0)
            return true;
    return false;
}

static bool is_named(const char *name, const char *key)
{
    size_t length = strlen(name);
    return name[length - 1] == '*' ? strncmp(name, key, length - 1) == 0 : strcmp(name, key) == 0;
}

static const struct settled *find(const struct translation *t, const char *key)
{
    for (size_t i = 0; i < sizeof SETTLED / sizeof *SETTLED; i++)
        if (strcmp(SETTLED[i].family, t->family->name) == 0 && is_named(SETTLED[i].key, key))
            return &SETTLED[i];
    return NULL;
}

bool read_settled(struct translation *t, const char *key)
{
    const struct settled *settled = find(t, key);
    if (settled && settled->only) {
        json_t *only = json_loads(settled->only, JSON_DECODE_ANY, NULL);
        if (!json_equal(only, json_object_get(t->config->json, key)))
            config_error(t->config, key, t->err, "only %s is supported", settled->only);
        json_decref(only);
    }
    return settled || is_harmless(key);
}
