/* openai readers: what is nearly a known member is refused, what belongs to others is ignored. */
#include "proto/openai.h"
#include "test_proto_support.h"

enum route { COMPLETION, CHAT, EMBEDDINGS, TOKENIZE, DETOKENIZE };

/* The beginnings of bodies that can be read. */
static const char *const BODIES[] = {
    [COMPLETION] = "{\"prompt\":\"a\"",
    [CHAT] = "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]",
    [EMBEDDINGS] = "{\"input\":\"a\"",
    [TOKENIZE] = "{\"content\":\"a\"",
    [DETOKENIZE] = "{\"tokens\":[1]",
};

static int read_body(enum route route, const char *body, size_t length, struct error *err)
{
    struct openai_completion completion;
    struct openai_chat chat;
    struct openai_embeddings embeddings;
    struct openai_text text;
    int result = -1;
    switch (route) {
    case COMPLETION:
        if ((result = openai_read_completion(body, length, &completion, err)) == 0)
            openai_completion_close(&completion);
        break;
    case CHAT:
        if ((result = openai_read_chat(body, length, &chat, err)) == 0)
            openai_chat_close(&chat);
        break;
    case EMBEDDINGS:
        if ((result = openai_read_embeddings(body, length, &embeddings, err)) == 0)
            openai_embeddings_close(&embeddings);
        break;
    case TOKENIZE:
    case DETOKENIZE:
        result = route == TOKENIZE ? openai_read_tokenize(body, length, &text, err)
                                   : openai_read_detokenize(body, length, &text, err);
        if (result == 0)
            openai_text_close(&text);
        break;
    }
    return result;
}

/* `members` begins with a comma. */
static int read_members(enum route route, const char *members, struct error *err)
{
    struct buffer body;
    buffer_init(&body, SIZE_MAX);
    buffer_format(&body, "%s%s}", BODIES[route], members);
    int result = read_body(route, body.data, body.length, err);
    buffer_close(&body);
    return result;
}

static const struct {
    enum route route;
    const char *members, *message;
} REFUSED[] = {
    {COMPLETION, ",\"max_token\":3", "'max_token' is unknown, did you mean 'max_tokens'?"},
    {COMPLETION, ",\"temprature\":0", "'temprature' is unknown, did you mean 'temperature'?"},
    {COMPLETION, ",\"top_K\":1", "'top_K' is unknown, did you mean 'top_k'?"},
    {COMPLETION, ",\"guided_jsn\":{}", "'guided_jsn' is unknown, did you mean 'guided_json'?"},
    {COMPLETION, ",\"Echo\":true", "'Echo' is unknown, did you mean 'echo'?"},
    {COMPLETION, ",\"stream_options\":{\"include_usages\":true}",
     "'stream_options': 'include_usages' is unknown, did you mean 'include_usage'?"},
    {CHAT, ",\"maxTokens\":3", "'maxTokens' is unknown, did you mean 'max_tokens'?"},
    {CHAT, ",\"topp\":0.5", "'topp' is unknown, did you mean 'top_p'?"},
    {CHAT, ",\"N\":2", "'N' is unknown, did you mean 'n'?"},
    {CHAT, ",\"tool\":[]", "'tool' is unknown, did you mean 'tools'?"},
    {CHAT, ",\"top_logprob\":2", "'top_logprob' is unknown, did you mean 'top_logprobs'?"},
    {CHAT, ",\"reasoning-effort\":\"low\"", "did you mean 'reasoning_effort'?"},
    {EMBEDDINGS, ",\"dimension\":2", "'dimension' is unknown, did you mean 'dimensions'?"},
    {TOKENIZE, ",\"add_specials\":true", "did you mean 'add_special'?"},
    {DETOKENIZE, ",\"Model\":\"a\"", "'Model' is unknown, did you mean 'model'?"},
    /* what is not supported, by a number of another type, too */
    {COMPLETION, ",\"n\":0", "'n' is not supported, other than 1"},
    {COMPLETION, ",\"n\":[1]", "'n' is a list, expected a number"},
    {COMPLETION, ",\"n\":\"1\"", "'n' is a string, expected a number"},
    {COMPLETION, ",\"n\":\"\"", "'n' is a string, expected a number"},
    {COMPLETION, ",\"n\":{}", "'n' is an object, expected a number"},
    {COMPLETION, ",\"n\":true", "'n' is a boolean, expected a number"},
    {COMPLETION, ",\"n\":false", "'n' is a boolean, expected a number"},
    {COMPLETION, ",\"best_of\":\"1\"", "'best_of' is a string, expected a number"},
    {CHAT, ",\"n\":[1]", "'n' is a list, expected a number"},
    {CHAT, ",\"typical_p\":[1]", "'typical_p' is a list, expected a number"},
};

START_TEST(what_is_misspelt_or_not_supported_is_refused)
{
    for (size_t i = 0; i < sizeof REFUSED / sizeof *REFUSED; i++) {
        struct error err = ERROR_INIT;
        ck_assert_msg(read_members(REFUSED[i].route, REFUSED[i].members, &err) == -1, "%s was read",
                      REFUSED[i].members);
        ck_assert_msg(err.code == ERROR_INVALID && strstr(err.text, REFUSED[i].message),
                      "'%s' is not in: %s", REFUSED[i].message, err.text);
    }
}
END_TEST

/* Members of clients and of other servers, as they are sent without a change. */
static const char *const OTHERS[] = {
    /* OpenAI's own */
    "store", "metadata", "service_tier", "parallel_tool_calls", "safety_identifier",
    "prompt_cache_key", "prompt_cache_retention",
    /* LangChain, LiteLLM, Open WebUI, OpenRouter, text-generation-webui, SillyTavern, llama.cpp */
    "extra_body", "stop_sequences", "num_retries", "drop_params", "tags", "cache", "caching",
    "no-log", "mock_response", "fallbacks", "thinking", "timeout", "chat_id", "id", "session_id",
    "features", "variables", "model_item", "files", "tool_ids", "tool_servers", "background_tasks",
    "params", "options", "keep_alive", "format", "models", "route", "provider", "transforms",
    "plugins", "reasoning", "usage", "mode", "preset", "character", "user_name", "max_new_tokens",
    "max_output_tokens", "min_length", "repeat_penalty", "rep_pen", "typical", "tfs", "tfs_z",
    "epsilon_cutoff", "do_sample", "num_beams", "smoothing_factor", "dry_base",
    "dry_allowed_length", "xtc_threshold", "mirostat_mode", "mirostat_tau", "mirostat_eta",
    "dynatemp_low", "truncation_length", "n_predict", "n_keep", "n_probs", "num_ctx",
    "cache_prompt", "id_slot", "samplers", "top_n_sigma", "safe_prompt", "random_seed",
    "input_type", "truncate", "task", "normalize",
    /* vLLM, SGLang, TensorRT-LLM */
    "include_stop_str_in_output", "skip_special_tokens", "spaces_between_special_tokens",
    "mm_processor_kwargs", "request_id", "return_tokens_as_token_ids", "return_token_ids",
    "return_token_strs", "cache_salt", "kv_transfer_params", "vllm_xargs", "include_reasoning",
    "logits_processors", "guided_decoding_backend", "guided_whitespace_pattern", "prompt_embeds",
    "rid", "lora_path", "regex", "ebnf", "separate_reasoning", "stream_reasoning", "stop_regex",
    "no_stop_trim", "return_hidden_states", "custom_logit_processor", "custom_params", "extra_key",
    "max_dynamic_patch", "min_dynamic_patch", "beam_width", "end_id", "stop_words", "top_p_min",
    "top_p_decay", "disaggregated_params", "return_context_logits"};

START_TEST(members_of_others_are_ignored)
{
    struct buffer members;
    buffer_init(&members, SIZE_MAX);
    for (size_t i = 0; i < sizeof OTHERS / sizeof *OTHERS; i++)
        buffer_format(&members, ",\"%s\":1", OTHERS[i]);
    buffer_text(&members, ",\"stream_options\":{\"include_obfuscation\":false,"
                          "\"continuous_usage_stats\":true}");
    buffer_append(&members, "", 1); /* its end as a string */
    for (size_t i = 0; i < sizeof BODIES / sizeof *BODIES; i++) {
        struct error err = ERROR_INIT;
        ck_assert_msg(read_members((enum route)i, members.data, &err) == 0, "%s: %s", BODIES[i],
                      err.text);
    }
    buffer_close(&members);
}
END_TEST

/* Some clients send every field that they know. */
START_TEST(null_is_no_misspelt_member)
{
    struct error err = ERROR_INIT;
    ck_assert_int_eq(read_members(CHAT, ",\"max_token\":null", &err), 0);
}
END_TEST

RUN_TESTS("openai_members", what_is_misspelt_or_not_supported_is_refused,
          members_of_others_are_ignored, null_is_no_misspelt_member)
