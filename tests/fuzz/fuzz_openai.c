/* Fuzzes OpenAI's readers with any body; the first byte chooses the route. What is read is within
 * its bounds, what is refused is said in OpenAI's shape. */
#include <stdlib.h>
#include <string.h>

#include "libfuzzer.h"
#include "proto/openai.h"

static void require(bool holds)
{
    if (!holds)
        abort();
}

static void check_prompts(const struct openai_prompts *prompts)
{
    require(prompts->count <= OPENAI_MAX_PROMPTS);
    for (size_t i = 0; i < prompts->count; i++) {
        const struct openai_prompt *prompt = &prompts->items[i];
        require(!prompt->text || prompt->count == 0);
        require(!prompt->text || strlen(prompt->text) == prompt->length);
        for (size_t j = 0; j < prompt->count; j++)
            require(prompt->ids[j] >= 0);
    }
}

static void check_generation(const struct openai_generation *generation)
{
    struct sampler_options options =
        openai_sampler_options(&generation->sampling, &SAMPLER_DEFAULTS, 1);
    require(options.temperature >= 0 && options.temperature <= 2);
    require(options.top_p >= 0 && options.top_p <= 1 && options.min_p >= 0 && options.min_p <= 1);
    require(options.repetition_penalty > 0 && options.bias_count <= SAMPLER_MAX_BIASES);
    require(generation->stop_count <= STOPS_MAX && generation->top_logprobs <= SAMPLER_MAX_TOP);
    require(generation->max_tokens == SIZE_MAX || generation->max_tokens <= OPENAI_MAX_TOKENS);
}

static int read_completion(const char *body, size_t length, struct error *err)
{
    struct openai_completion request;
    if (openai_read_completion(body, length, &request, err) != 0)
        return -1;
    check_generation(&request.generation);
    check_prompts(&request.prompts);
    require(request.prompts.count > 0);
    openai_completion_close(&request);
    return 0;
}

static int read_chat(const char *body, size_t length, struct error *err)
{
    struct openai_chat request;
    if (openai_read_chat(body, length, &request, err) != 0)
        return -1;
    check_generation(&request.generation);
    require(json_array_size(json_object_get(request.variables, "messages")) > 0);
    openai_chat_close(&request);
    return 0;
}

static int read_embeddings(const char *body, size_t length, struct error *err)
{
    struct openai_embeddings request;
    if (openai_read_embeddings(body, length, &request, err) != 0)
        return -1;
    check_prompts(&request.prompts);
    openai_embeddings_close(&request);
    return 0;
}

static int read_text(const char *body, size_t length, bool ids, struct error *err)
{
    struct openai_text request;
    if ((ids ? openai_read_detokenize(body, length, &request, err)
             : openai_read_tokenize(body, length, &request, err)) != 0)
        return -1;
    check_prompts(&request.input);
    require(request.input.count == 1);
    openai_text_close(&request);
    return 0;
}

static void check_error(const struct error *err)
{
    struct buffer body;
    require(err->code != ERROR_NONE && *err->text);
    buffer_init(&body, 1 << 16);
    openai_write_error(err, &body);
    json_t *tree = json_loadb(body.data, body.length, JSON_ALLOW_NUL, NULL);
    require(json_is_string(json_object_get(json_object_get(tree, "error"), "message")));
    json_decref(tree);
    buffer_close(&body);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    const char *body = (const char *)data + 1;
    struct error err = ERROR_INIT;
    int result = -1;
    switch (data[0] % 5) {
    case 0:
        result = read_completion(body, size - 1, &err);
        break;
    case 1:
        result = read_chat(body, size - 1, &err);
        break;
    case 2:
        result = read_embeddings(body, size - 1, &err);
        break;
    default:
        result = read_text(body, size - 1, data[0] % 5 == 3, &err);
    }
    if (result != 0)
        check_error(&err);
    return 0;
}
