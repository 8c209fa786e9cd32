/* What asks a model to go on: the members of completions and chats alike, and completions. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "core/text.h"
#include "proto/openai_body.h"

/* Of completions and chats alike. */
static const struct openai_member SHARED[] = {
    {"model", NULL},
    {"temperature", NULL},
    {"top_p", NULL},
    {"top_k", NULL},
    {"min_p", NULL},
    {"repetition_penalty", NULL},
    {"frequency_penalty", NULL},
    {"presence_penalty", NULL},
    {"seed", NULL},
    {"logit_bias", NULL},
    {"max_tokens", NULL},
    {"max_completion_tokens", NULL},
    {"stop", NULL},
    {"stop_token_ids", NULL},
    {"stream", NULL},
    {"stream_options", NULL},
    {"ignore_eos", NULL},
    {"user", NULL},
    {"priority", NULL},
    {"experts", NULL},
    {"routing", NULL},
    {"return_routed_experts", NULL},
    /* would change an answer, and are not there */
    {"n", "1"},
    {"best_of", "1"},
    {"suffix", ""},
    {"response_format", "text"},
    /* of other servers */
    {"use_beam_search", ""},
    {"length_penalty", "0 1"},
    {"min_tokens", ""},
    {"bad_words", ""},
    {"allowed_token_ids", ""},
    {"prompt_logprobs", ""},
    {"truncate_prompt_tokens", ""},
    {"structured_outputs", ""},
    {"guided_json", ""},
    {"guided_regex", ""},
    {"guided_choice", ""},
    {"guided_grammar", ""},
    {"grammar", ""},
    {"json_schema", ""},
    {"typical_p", "0 1"},
    {"top_a", ""},
    {"mirostat", ""},
    {"dry_multiplier", ""},
    {"xtc_probability", ""},
    {"no_repeat_ngram_size", ""},
    {NULL, NULL},
};

/* ---- sampling ---- */

/* "logit_bias": {"<token id>": bias}. */
static int read_biases(const json_t *root, struct openai_sampling *sampling, struct error *err)
{
    const json_t *biases = NULL;
    if (member_object(root, NULL, "logit_bias", &biases, err) != 0)
        return -1;
    size_t count = json_object_size(biases);
    if (count > SAMPLER_MAX_BIASES)
        return error_set(err, ERROR_TOO_LARGE, "'logit_bias' has %zu entries, the limit is %d",
                         count, SAMPLER_MAX_BIASES);
    sampling->biases = xcalloc(count, sizeof *sampling->biases);
    const char *key;
    json_t *value;
    json_object_foreach ((json_t *)biases, key, value) {
        uint64_t token;
        const char *end = text_whole_number(key, &token);
        double bias = json_is_number(value) ? json_number_value(value) : NAN;
        if (!end || *end || token > INT32_MAX)
            return error_set(err, ERROR_INVALID,
                             "'logit_bias' has the key " QUOTED ", expected token ids", key);
        if (!(bias >= -100 && bias <= 100))
            return error_set(err, ERROR_INVALID,
                             "'logit_bias' of token %s is not a number from -100 to 100", key);
        sampling->biases[sampling->bias_count++] =
            (struct sampler_bias){(int32_t)token, (float)bias};
    }
    return 0;
}

static int read_seed(const json_t *root, struct openai_sampling *sampling, struct error *err)
{
    const json_t *seed = json_object_get(root, "seed");
    if (!seed || json_is_null(seed))
        return 0;
    if (!json_is_integer(seed))
        return error_set(err, ERROR_INVALID, "'seed' is %s, expected a whole number of 64 bits",
                         json_is_real(seed) ? "not whole" : member_type(seed));
    sampling->seeded = true;
    sampling->seed = (uint64_t)json_integer_value(seed);
    return 0;
}

/* -1, or 0: all of them. */
static int read_top_k(const json_t *root, struct openai_sampling *sampling, struct error *err)
{
    double top_k = NAN;
    if (openai_number(root, "top_k", -1, INT32_MAX, &top_k, err) != 0)
        return -1;
    if (isnan(top_k))
        return 0;
    if (top_k != floor(top_k))
        return error_set(err, ERROR_INVALID, "'top_k' is %.10g, expected a whole number", top_k);
    sampling->top_k = top_k < 0 ? 0 : (size_t)top_k;
    return 0;
}

static int read_sampling(const json_t *root, struct openai_sampling *sampling, struct error *err)
{
    const struct {
        const char *key;
        double least, most;
        double *value;
    } numbers[] = {
        {"temperature", 0, 2, &sampling->temperature},
        {"top_p", 0, 1, &sampling->top_p},
        {"min_p", 0, 1, &sampling->min_p},
        {"repetition_penalty", 0.01, 100, &sampling->repetition_penalty},
        {"frequency_penalty", -2, 2, &sampling->frequency_penalty},
        {"presence_penalty", -2, 2, &sampling->presence_penalty},
    };
    *sampling = (struct openai_sampling){.top_k = SIZE_MAX};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        *numbers[i].value = NAN;
        if (openai_number(root, numbers[i].key, numbers[i].least, numbers[i].most, numbers[i].value,
                          err) != 0)
            return -1;
    }
    if (read_top_k(root, sampling, err) != 0 || read_seed(root, sampling, err) != 0)
        return -1;
    return read_biases(root, sampling, err);
}

static float given(double value, float otherwise)
{
    return isnan(value) ? otherwise : (float)value;
}

struct sampler_options openai_sampler_options(const struct openai_sampling *sampling,
                                              const struct sampler_options *recommended,
                                              uint64_t seed)
{
    return (struct sampler_options){
        .temperature = given(sampling->temperature, recommended->temperature),
        .top_k = sampling->top_k == SIZE_MAX ? recommended->top_k : sampling->top_k,
        .top_p = given(sampling->top_p, recommended->top_p),
        .min_p = given(sampling->min_p, recommended->min_p),
        .repetition_penalty = given(sampling->repetition_penalty, recommended->repetition_penalty),
        .frequency_penalty = given(sampling->frequency_penalty, recommended->frequency_penalty),
        .presence_penalty = given(sampling->presence_penalty, recommended->presence_penalty),
        .seed = sampling->seeded ? sampling->seed : seed,
        .biases = sampling->biases,
        .bias_count = sampling->bias_count,
    };
}

int openai_check_tokens(const struct openai_generation *generation, size_t vocabulary,
                        struct error *err)
{
    const struct openai_sampling *sampling = &generation->sampling;
    for (size_t i = 0; i < generation->stop_token_count; i++)
        if ((size_t)generation->stop_tokens[i] >= vocabulary)
            return error_set(err, ERROR_INVALID,
                             "'stop_token_ids' has %d, which is not in the model's vocabulary of "
                             "%zu",
                             (int)generation->stop_tokens[i], vocabulary);
    for (size_t i = 0; i < sampling->bias_count; i++)
        if ((size_t)sampling->biases[i].token >= vocabulary)
            return error_set(err, ERROR_INVALID,
                             "'logit_bias' has the token %d, which is not in the model's "
                             "vocabulary of %zu",
                             (int)sampling->biases[i].token, vocabulary);
    return 0;
}

/* ---- what completions and chats share ---- */

/* "stop": a string or a list of them. */
static int read_stops(const json_t *root, struct openai_generation *generation, struct error *err)
{
    const json_t *stop = json_object_get(root, "stop");
    size_t count = json_is_array(stop) ? json_array_size(stop) : stop && !json_is_null(stop);
    if (count > STOPS_MAX)
        return error_set(err, ERROR_INVALID, "'stop' has %zu strings, at most %d are allowed",
                         count, STOPS_MAX);
    for (size_t i = 0; i < count; i++) {
        const json_t *text = json_is_array(stop) ? json_array_get(stop, i) : stop;
        if (!json_is_string(text))
            return error_set(err, ERROR_INVALID, "'stop' %s %s, expected a string or strings",
                             json_is_array(stop) ? "has" : "is", member_type(text));
        size_t length = json_string_length(text);
        if (length == 0 || length > STOP_MAX_BYTES)
            return error_set(err, ERROR_INVALID,
                             "'stop' has a string of %zu bytes, expected 1 to %d", length,
                             STOP_MAX_BYTES);
        generation->stops[generation->stop_count++] = json_string_value(text);
    }
    return 0;
}

/* "stop_token_ids", as vLLM and SGLang have it. */
static int read_stop_tokens(const json_t *root, struct openai_generation *generation,
                            struct error *err)
{
    const json_t *list = NULL;
    size_t index;
    json_t *item;
    if (member_list(root, NULL, "stop_token_ids", &list, err) != 0)
        return -1;
    if (json_array_size(list) > OPENAI_MAX_STOP_TOKENS)
        return error_set(err, ERROR_INVALID, "'stop_token_ids' has %zu ids, at most %d are allowed",
                         json_array_size(list), OPENAI_MAX_STOP_TOKENS);
    json_array_foreach((json_t *)list, index, item)
    {
        const json_int_t id = json_integer_value(item);
        if (!json_is_integer(item) || id < 0 || id > INT32_MAX)
            return error_set(err, ERROR_INVALID,
                             "'stop_token_ids' has at [%zu] what is no token id", index);
        generation->stop_tokens[generation->stop_token_count++] = (int32_t)id;
    }
    return 0;
}

static int read_stream(const json_t *root, struct openai_generation *generation, struct error *err)
{
    const json_t *options = NULL;
    if (member_bool(root, NULL, "stream", &generation->stream, err) != 0 ||
        member_object(root, NULL, "stream_options", &options, err) != 0)
        return -1;
    if (!options)
        return 0;
    static const struct openai_member MEMBERS[] = {{"include_usage", NULL}, {NULL, NULL}};
    if (openai_check_members(options, "'stream_options'", MEMBERS, NULL, err) != 0)
        return -1;
    return member_bool(options, "'stream_options'", "include_usage", &generation->include_usage,
                       err);
}

/* "routing": true, false, "base64" or "npy"; or SGLang's own word, "return_routed_experts": true.
 */
static int read_routing(const json_t *root, enum openai_routing_form *form, struct error *err)
{
    const json_t *routing = json_object_get(root, "routing");
    const char *text = json_string_value(routing);
    bool as_sglang = false;
    if (member_bool(root, NULL, "return_routed_experts", &as_sglang, err) != 0)
        return -1;
    if (as_sglang && (text || json_is_true(routing)))
        return error_set(err, ERROR_INVALID,
                         "'routing' and 'return_routed_experts' ask for the same in two forms");
    if (as_sglang)
        *form = OPENAI_ROUTING_SGLANG;
    else if (text && strcmp(text, "npy") == 0)
        *form = OPENAI_ROUTING_NPY;
    else if (text && strcmp(text, "base64") == 0)
        *form = OPENAI_ROUTING_BASE64;
    else if (json_is_true(routing))
        *form = OPENAI_ROUTING_LISTS;
    else if (routing && !json_is_false(routing) && !json_is_null(routing))
        return error_set(err, ERROR_INVALID,
                         "'routing' is %s%.64s%s, expected true, false, \"base64\" or \"npy\"",
                         text ? "'" : "", text ? text : member_type(routing), text ? "'" : "");
    return 0;
}

static int read_generation(const json_t *root, size_t least_tokens,
                           struct openai_generation *generation, struct error *err)
{
    if (member_string(root, NULL, "model", &generation->model, err) != 0 ||
        read_sampling(root, &generation->sampling, err) != 0 ||
        openai_whole(root, "max_tokens", least_tokens, OPENAI_MAX_TOKENS, &generation->max_tokens,
                     err) != 0 ||
        /* the newer name wins */
        openai_whole(root, "max_completion_tokens", least_tokens, OPENAI_MAX_TOKENS,
                     &generation->max_tokens, err) != 0 ||
        read_stops(root, generation, err) != 0 || read_stop_tokens(root, generation, err) != 0 ||
        read_stream(root, generation, err) != 0)
        return -1;
    if (member_bool(root, NULL, "ignore_eos", &generation->ignore_eos, err) != 0 ||
        member_string(root, NULL, "user", &generation->user, err) != 0 ||
        openai_priority(root, &generation->priority, err) != 0 ||
        member_object(root, NULL, "experts", &generation->experts, err) != 0)
        return -1;
    return read_routing(root, &generation->routing, err);
}

int openai_generation_read(json_t *root, const struct openai_member *own, size_t least_tokens,
                           struct openai_generation *generation, struct error *err)
{
    *generation = (struct openai_generation){.root = root, .max_tokens = SIZE_MAX};
    if (root && openai_check_members(root, NULL, own, SHARED, err) == 0 &&
        read_generation(root, least_tokens, generation, err) == 0)
        return 0;
    openai_generation_close(generation);
    return -1;
}

void openai_generation_close(struct openai_generation *generation)
{
    json_decref(generation->root);
    free(generation->sampling.biases);
    *generation = (struct openai_generation){0};
}

/* ---- completions ---- */

/* "logprobs": how many alternatives. */
static int read_logprobs(const json_t *root, struct openai_generation *generation,
                         struct error *err)
{
    size_t top = SIZE_MAX;
    if (openai_whole(root, "logprobs", 0, SAMPLER_MAX_TOP, &top, err) != 0)
        return -1;
    generation->logprobs = top != SIZE_MAX;
    generation->top_logprobs = top == SIZE_MAX ? 0 : top;
    return 0;
}

int openai_read_completion(const char *body, size_t length, struct openai_completion *request,
                           struct error *err)
{
    *request = (struct openai_completion){0};
    static const struct openai_member OWN[] = {
        {"prompt", NULL}, {"logprobs", NULL}, {"echo", NULL}, {NULL, NULL}};
    struct openai_generation *generation = &request->generation;
    if (openai_generation_read(openai_body(body, length, err), OWN, 0, generation, err) != 0)
        return -1;
    if (openai_prompts_read(generation->root, "prompt", &request->prompts, err) == 0 &&
        read_logprobs(generation->root, generation, err) == 0 &&
        member_bool(generation->root, NULL, "echo", &request->echo, err) == 0)
        return 0;
    openai_completion_close(request);
    return -1;
}

void openai_completion_close(struct openai_completion *request)
{
    openai_prompts_close(&request->prompts);
    openai_generation_close(&request->generation);
}
