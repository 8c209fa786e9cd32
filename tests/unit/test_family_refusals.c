/* Published checkpoints that cannot be computed exactly are refused, naming what and where; what
 * does not matter is ignored by name. Each case is a fixture of another test with an edited config.
 */
#include <jansson.h>
#include <unistd.h>

#include "core/load/safetensors.h"
#include "server/inspect.h"
#include "support.h"

#define FAMILIES MOED_TEST_DATA "/data/families/"

/* A directory with the fixture's weights and its config, where members of `edit` replace others and
 * those that are "-" remove them; the caller frees the path. */
static char *edited(const char *family, const char *edit)
{
    char path[PATH_MAX], link[PATH_MAX], *directory = new_directory();
    const char *key;
    json_t *value;
    snprintf(path, sizeof path, FAMILIES "%s/config.json", family);
    json_t *config = json_load_file(path, 0, NULL), *changes = json_loads(edit, 0, NULL);
    ck_assert_ptr_nonnull(config);
    ck_assert_msg(changes != NULL, "not JSON: %s", edit);
    json_object_foreach (changes, key, value)
        if (json_is_string(value) && strcmp(json_string_value(value), "-") == 0)
            json_object_del(config, key);
        else
            json_object_set(config, key, value);
    snprintf(path, sizeof path, "%s/config.json", directory);
    ck_assert_int_eq(json_dump_file(config, path, 0), 0);
    snprintf(path, sizeof path, FAMILIES "%s/model.safetensors", family);
    snprintf(link, sizeof link, "%s/model.safetensors", directory);
    ck_assert_int_eq(symlink(path, link), 0);
    json_decref(config);
    json_decref(changes);
    return directory;
}

static void load_edited(const char *family, const char *edit, const char *part)
{
    struct error err = ERROR_INIT;
    char *directory = edited(family, edit);
    struct moed_model *model = moed_model_load(directory, NULL, &err);
    if (part) {
        ck_assert_msg(!model, "%s: accepted: %s", family, edit);
        expect_text(err.text, part);
    } else {
        ck_assert_msg(model != NULL, "%s: %s: %s", family, edit, err.text);
    }
    moed_model_free(model);
    free(directory);
}

static const struct refusal {
    const char *family, *edit, *part;
} NOT_UNDERSTOOD[] = {
    {"olmoe", "{\"model_type\":\"foo\"}", "model_type \"foo\" is not known"},
    {"olmoe", "{\"hidden_act\":\"gelu\"}", "hidden_act: \"gelu\" is not supported"},
    {"olmoe", "{\"new_key\":1}", "the key 'new_key' is not known for model_type \"olmoe\""},
    {"olmoe", "{\"hidden_size\":\"-\"}", "hidden_size: missing"},
    {"olmoe", "{\"vocab_size\":\"128\"}", "vocab_size: expected an integer"},
    {"olmoe", "{\"num_experts\":null}", "num_experts: missing"},
    {"olmoe", "{\"rope_parameters\":{\"rope_type\":\"spiral\"}}",
     "rope_parameters.rope_type: 'spiral' is not one of"},
    {"olmoe", "{\"rope_parameters\":{\"rope_type\":\"default\",\"new\":1}}",
     "rope_parameters: unknown key 'new'"},
    {"olmoe", "{\"rope_scaling\":{\"type\":\"linear\",\"factor\":2}}",
     "rope_parameters: \"rope_scaling\" is its older name: one of the two must go"},
    {"llama", "{\"rope_parameters\":{\"rope_type\":\"llama3\"}}",
     "rope_parameters.factor: missing"},
    {"deepseek_v2",
     "{\"rope_parameters\":{\"rope_type\":\"yarn\",\"original_max_position_embeddings\":16,"
     "\"mscale_all_dim\":0.5}}",
     "rope_parameters.factor: missing"},
    {"phimoe", "{\"rope_parameters\":{\"rope_type\":\"longrope\",\"short_factor\":[1]}}",
     "short_factor: 1 number for 3 pairs"},
    {"olmoe", "{\"attention_bias\":true}", "q_proj.bias' is missing"},
    {"llama", "{\"attention_bias\":false}", "bias' is used by no layer"},
    {"qwen3_moe", "{\"use_sliding_window\":true}", "use_sliding_window: true is not supported"},
    {"qwen3_moe", "{\"mlp_only_layers\":[7]}", "mlp_only_layers: entry 0"},
    {"qwen2_moe", "{\"layer_types\":[\"full_attention\"]}", "1 entry for 2 layers"},
    {"gpt_oss", "{\"layer_types\":[\"full_attention\",\"linear_attention\"]}",
     "\"linear_attention\" is not supported"},
    {"gpt_oss", "{\"rope_parameters\":null}", "rope_scaling: missing"},
    {"gpt_oss_mxfp4", "{\"quantization_config\":{\"quant_method\":\"awq\"}}",
     "quantization_config.quant_method: 'awq' is not one of"},
    {"qwen3_fp8", "{\"quantization_config\":{\"quant_method\":\"fp8\"}}",
     "quantization_config.weight_block_size: missing; FP8 is read in blocks of [128, 128]"},
    {"qwen3_fp8",
     "{\"quantization_config\":{\"quant_method\":\"fp8\",\"weight_block_size\":[64,64]}}",
     "weight_block_size: expected [128, 128]"},
    {"hunyuan_v1_moe", "{\"moe_topk\":[2,3]}", "moe_topk: layers that differ"},
    {"hunyuan_v1_moe", "{\"num_shared_expert\":[2,2]}", "num_shared_expert 1"},
    {"minimax_m2", "{\"attn_type_list\":[0,1]}", "attn_type_list: entry 0"},
    {"minimax_m2", "{\"rope_parameters\":null,\"rotary_dim\":7}", "cannot make pairs"},
    {"qwen3_moe", "{\"num_experts\":7}", "num_experts: only 8 is supported"},
    {"granite", "{\"logits_scaling\":0}", "logits_scaling: expected another number than 0"},
};

START_TEST(what_is_not_understood_is_refused_by_name)
{
    for (size_t i = 0; i < sizeof NOT_UNDERSTOOD / sizeof *NOT_UNDERSTOOD; i++)
        load_edited(NOT_UNDERSTOOD[i].family, NOT_UNDERSTOOD[i].edit, NOT_UNDERSTOOD[i].part);
}
END_TEST

START_TEST(sizes_that_do_not_fit_the_tensors_are_refused)
{
    static const struct {
        const char *family, *edit, *part;
    } cases[] = {
        {"olmoe", "{\"num_hidden_layers\":1}", "tensor 'model.layers.1."},
        {"olmoe", "{\"num_hidden_layers\":3}",
         "'model.layers.2.input_layernorm.weight' is missing"},
        {"olmoe", "{\"num_hidden_layers\":2000}", "num_hidden_layers: more than 1024"},
        {"olmoe", "{\"num_hidden_layers\":1000000000000000000}", "num_hidden_layers: expected"},
        {"olmoe", "{\"vocab_size\":1048576}", "has shape [128, 24], expected [1048576, 24]"},
        {"olmoe", "{\"num_experts\":1048576}", "has shape [6, 24], expected [1048576, 24]"},
        {"olmoe", "{\"num_experts\":5}", "has shape [6, 24], expected [5, 24]"},
        {"olmoe", "{\"num_experts_per_tok\":7}", "top_k"},
        {"olmoe", "{\"num_attention_heads\":1048576}", "cannot make pairs"},
        {"olmoe", "{\"num_attention_heads\":3}",
         "k_proj.weight' has shape [12, 24], expected [16, 24]"},
        {"olmoe", "{\"head_dim\":7}", "7 numbers of a head cannot make pairs"},
        {"olmoe", "{\"max_position_embeddings\":0}", "max_position_embeddings: expected"},
        {"qwen2_moe", "{\"shared_expert_intermediate_size\":11}",
         "shared_expert.gate_proj.weight'"},
        {"granitemoe", "{\"intermediate_size\":13}", "input_linear.weight' has shape [6, 24, 24]"},
        {"gpt_oss_mxfp4", "{\"intermediate_size\":40}", "has shape [3, 64, 1, 16]"},
        {"glm4_moe", "{\"n_group\":3}", "groups"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        load_edited(cases[i].family, cases[i].edit, cases[i].part);
}
END_TEST

/* 180,000 experts of six numbers: a file of 6 MB, and 540,000 views. */
START_TEST(a_file_of_many_small_experts_is_refused)
{
    enum { EXPERTS = 180000 };
    const char *config =
        "{'model_type':'granitemoe','vocab_size':2,'hidden_size':2,'num_hidden_layers':1,"
        "'num_attention_heads':1,'head_dim':2,'max_position_embeddings':8,'num_local_experts':"
        "180000,'num_experts_per_tok':2,'intermediate_size':1,'tie_word_embeddings':true}";
    float *numbers = xcalloc(4 * EXPERTS, sizeof *numbers);
#define LAYER     "model.layers.0."
#define ATTENTION LAYER "self_attn."
#define EXPERT    LAYER "block_sparse_moe."
    const struct stored tensors[] = {
        {"model.embed_tokens.weight", 2, {2, 2}, numbers, NULL},
        {LAYER "input_layernorm.weight", 1, {2}, numbers, NULL},
        {LAYER "post_attention_layernorm.weight", 1, {2}, numbers, NULL},
        {ATTENTION "q_proj.weight", 2, {2, 2}, numbers, NULL},
        {ATTENTION "k_proj.weight", 2, {2, 2}, numbers, NULL},
        {ATTENTION "v_proj.weight", 2, {2, 2}, numbers, NULL},
        {ATTENTION "o_proj.weight", 2, {2, 2}, numbers, NULL},
        {EXPERT "router.layer.weight", 2, {EXPERTS, 2}, numbers, NULL},
        {EXPERT "input_linear.weight", 3, {EXPERTS, 2, 2}, numbers, NULL},
        {EXPERT "output_linear.weight", 3, {EXPERTS, 2, 1}, numbers, NULL},
    };
    expect_config_refused(config, tensors, sizeof tensors / sizeof *tensors,
                          "_linear.weight': more than 524288 matrices and vectors in all");
    free(numbers);
}
END_TEST

START_TEST(what_does_not_matter_is_accepted)
{
    load_edited("olmoe", "{\"transformers_version\":\"9\",\"use_cache\":false,\"clip_qkv\":null}",
                NULL);
    load_edited("olmoe", "{\"rope_parameters\":\"-\",\"rope_theta\":10000,\"rope_scaling\":null}",
                NULL);
    load_edited("qwen3_moe", "{\"sliding_window\":4096,\"max_window_layers\":28}", NULL);
    load_edited(
        "llama",
        "{\"rope_parameters\":\"-\",\"rope_theta\":10000,\"rope_scaling\":{\"type\":\"yarn\","
        "\"factor\":4,\"original_max_position_embeddings\":16}}",
        NULL);
    load_edited("glm4_moe", "{\"num_nextn_predict_layers\":1}", NULL);
    load_edited(
        "hunyuan_v1_moe",
        "{\"moe_topk\":[2,2],\"moe_intermediate_size\":[12,12],\"num_shared_expert\":[1,1]}", NULL);
    load_edited("minimax_m2",
                "{\"rope_parameters\":null,\"rope_theta\":5000000,\"rotary_dim\":8,"
                "\"attn_type_list\":[1,1],\"num_mtp_modules\":3,\"shared_intermediate_size\":0}",
                NULL);
    load_edited("ernie4_5_moe", "{\"moe_gate\":\"topk\",\"moe_capacity\":[64,64,64]}", NULL);
}
END_TEST

/* What is in configs of models that are published, beside what transformers writes itself. */
START_TEST(a_routing_reference_is_read)
{
    char *directory = edited("olmoe", "{\"routing_reference\":{\"layers.1.moe\":{"
                                      "\"share\":[1,2,3,4,5,6],\"rows\":42}}}");
    struct error err = ERROR_INIT;
    struct moed_model *model = moed_model_load(directory, NULL, &err);
    ck_assert_msg(model != NULL, "%s", err.text);
    const struct moed_gate_info *gates = moed_model_info(model)->gates;
    ck_assert_ptr_null(gates[0].reference);
    ck_assert_uint_eq(gates[1].reference->rows, 42);
    ck_assert_double_eq(gates[1].reference->share[5], 6);
    moed_model_free(model);
    free(directory);
    load_edited("olmoe", "{\"routing_reference\":{\"model.layers.1.mlp\":{}}}",
                "config.json: routing_reference: no MoE layer is called 'model.layers.1.mlp'");
    load_edited("olmoe", "{\"routing_reference\":{\"layers.1.moe\":{\"share\":[1],\"rows\":42}}}",
                "config.json: routing_reference.layers.1.moe.share: 1 share for 6 experts");
}
END_TEST

START_TEST(keys_of_published_configs_are_known)
{
    static const struct refusal cases[] = {
        {"qwen3_moe",
         "{\"qkv_bias\":false,\"use_qk_norm\":true,\"shared_expert_intermediate_size\":0}",
         "{\"qkv_bias\":true}"},
        {"qwen2", "{\"use_mrope\":false}", "{\"use_mrope\":true}"},
        {"llama", "{\"is_llama_config\":true,\"rope_interleaved\":false,\"unsloth_fixed\":true}",
         "{\"rope_interleaved\":true}"},
        {"nomic_bert", "{\"add_pooling_layer\":false}", "{\"add_pooling_layer\":true}"},
        {"ernie4_5_moe",
         "{\"use_rmsnorm\":true,\"is_quantized\":false,\"num_nextn_predict_layers\":1}",
         "{\"use_rmsnorm\":false}"},
        {"hunyuan_v1_moe",
         "{\"add_classification_head\":false,\"vit_patch\":1,\"im_end_id\":6,\"n_group\":false,"
         "\"dense_list\":[4096,0],\"norm_type\":\"rms\",\"moe_layer_num_skipped\":0}",
         "{\"moe_layer_num_skipped\":1}"},
        {"qwen3_fp8",
         "{\"quantization_config\":{\"quant_method\":\"fp8\",\"scale_fmt\":\"ue8m0\","
         "\"weight_block_size\":[128,128]}}",
         "{\"scale_fmt\":\"ue8m0\"}"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        load_edited(cases[i].family, cases[i].edit, NULL);
        load_edited(cases[i].family, cases[i].part, "config.json: ");
    }
}
END_TEST

/* Another shard with a tensor of this name. */
static char *with_tensor(const char *family, const char *name)
{
    char path[PATH_MAX], *directory = edited(family, "{}");
    struct error err = ERROR_INIT;
    struct tensor *tensor;
    json_t *map = json_object();
    struct safetensors *file = safetensors_open(directory, false, &err);
    ck_assert_msg(file != NULL, "%s", err.text);
    for (size_t i = 0; (tensor = safetensors_at(file, i)); i++)
        json_object_set_new(map, tensor->name, json_string("model.safetensors"));
    safetensors_free(file);
    write_safetensors(directory, "more.safetensors", TENSORS(STORED(name, DIMS(3), 1, 2, 3)), 0);
    json_object_set_new(map, name, json_string("more.safetensors"));
    json_t *index = json_pack("{s:{}, s:o}", "metadata", "weight_map", map);
    snprintf(path, sizeof path, "%s/model.safetensors.index.json", directory);
    ck_assert_int_eq(json_dump_file(index, path, 0), 0);
    json_decref(index);
    return directory;
}

static int run_inspect(const char *directory, bool json, FILE *out, struct error *err)
{
    char *arguments[] = {"--models", (char *)directory};
    struct options options;
    ck_assert_int_eq(options_init(&options, 2, arguments, err), 0);
    int result = inspect(directory, &(struct inspect_options){&options, json, false}, out, err);
    options_close(&options);
    return result;
}

START_TEST(tensors_of_layers_that_guess_are_ignored)
{
    struct error err = ERROR_INIT;
    char *directory = with_tensor("ernie4_5_moe", "model.mtp_emb_norm.0.weight");
    struct moed_model *model = moed_model_load(directory, NULL, &err);
    ck_assert_msg(model != NULL, "%s", err.text);
    ck_assert_uint_eq(moed_model_info(model)->ignored_count, 1);
    moed_model_free(model);
    free(directory);
}
END_TEST

START_TEST(inspect_shows_the_translation_and_what_is_ignored)
{
    struct error err = ERROR_INIT;
    static const char name[] = "model.layers.0.self_attn.rotary_emb.inv_freq";
    char *directory = with_tensor("olmoe", name), *text;
    size_t length;
    static const char *const parts[] = {
        "translated from model_type olmoe\n",
        "  ignored model.layers.0.self_attn.rotary_emb.inv_freq\n",
        "input   tokens [] of 128 categories\n",
        "moe layers.1.moe",
        "6 experts, 2 serve a row",
        "for a sequence of 64, the longest\n",
    };
    FILE *out = open_memstream(&text, &length);
    ck_assert_msg(run_inspect(directory, false, out, &err) == 0, "%s", err.text);
    fclose(out);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        expect_text(text, parts[i]);
    free(text);
    out = open_memstream(&text, &length);
    ck_assert_int_eq(run_inspect(directory, true, out, &err), 0);
    fclose(out);
    json_t *json = json_loads(text, 0, NULL);
    ck_assert_str_eq(json_string_value(json_object_get(json, "model_type")), "olmoe");
    ck_assert_uint_eq(json_array_size(json_object_get(json, "ignored")), 1);
    json_decref(json);
    free(text);
    free(directory);
}
END_TEST

TEST_MAIN("family_refusals", what_is_not_understood_is_refused_by_name,
          sizes_that_do_not_fit_the_tensors_are_refused, a_file_of_many_small_experts_is_refused,
          what_does_not_matter_is_accepted, a_routing_reference_is_read,
          keys_of_published_configs_are_known, tensors_of_layers_that_guess_are_ignored,
          inspect_shows_the_translation_and_what_is_ignored)
