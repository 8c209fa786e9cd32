/* Requests about texts that nothing is generated for: embeddings, token ids and back. */
#include <string.h>

#include "core/memory.h"
#include "proto/openai_body.h"

static int read_embeddings(const json_t *root, struct openai_embeddings *request, struct error *err)
{
    static const struct openai_member MEMBERS[] = {
        {"model", NULL}, {"input", NULL},    {"encoding_format", NULL}, {"dimensions", NULL},
        {"user", NULL},  {"priority", NULL}, {"experts", ""},           {NULL, NULL}};
    const char *format = "float";
    if (openai_check_members(root, NULL, MEMBERS, NULL, err) != 0 ||
        member_string(root, NULL, "model", &request->model, err) != 0 ||
        member_string(root, NULL, "encoding_format", &format, err) != 0 ||
        openai_whole(root, "dimensions", 1, INT32_MAX, &request->dimensions, err) != 0 ||
        member_string(root, NULL, "user", &request->user, err) != 0 ||
        openai_priority(root, &request->priority, err) != 0)
        return -1;
    request->base64 = strcmp(format, "base64") == 0;
    if (!request->base64 && strcmp(format, "float") != 0)
        return error_set(err, ERROR_INVALID,
                         "'encoding_format' is " QUOTED ", expected float or base64", format);
    return openai_prompts_read(root, "input", &request->prompts, err);
}

int openai_read_embeddings(const char *body, size_t length, struct openai_embeddings *request,
                           struct error *err)
{
    *request = (struct openai_embeddings){.root = openai_body(body, length, err)};
    if (request->root && read_embeddings(request->root, request, err) == 0)
        return 0;
    openai_embeddings_close(request);
    return -1;
}

void openai_embeddings_close(struct openai_embeddings *request)
{
    openai_prompts_close(&request->prompts);
    json_decref(request->root);
    *request = (struct openai_embeddings){0};
}

/* ---- /tokenize, /detokenize ---- */

static int read_text(const json_t *root, const char *key, bool ids, struct openai_text *request,
                     struct error *err)
{
    const json_t *value = json_object_get(root, key);
    if (member_string(root, NULL, "model", &request->model, err) != 0 ||
        member_bool(root, NULL, "add_special", &request->add_special, err) != 0)
        return -1;
    if (ids && json_is_array(value) && json_array_size(value) == 0) { /* no ids are no text */
        request->input =
            (struct openai_prompts){.items = xcalloc(1, sizeof *request->input.items), .count = 1};
        return 0;
    }
    if (value && (ids ? !json_is_array(value) || !json_is_integer(json_array_get(value, 0))
                      : !json_is_string(value)))
        return error_set(err, ERROR_INVALID, "'%s' is %s, expected %s", key, member_type(value),
                         ids ? "a list of token ids" : "a string");
    return openai_prompts_read(root, key, &request->input, err);
}

static bool is_given(const json_t *root, const char *key)
{
    const json_t *value = json_object_get(root, key);
    return value && !json_is_null(value);
}

/* In llama.cpp's words, or in those of vLLM, where the marks around a text are added unless it is
 * told otherwise. */
static int read_tokenize(const json_t *root, struct openai_text *request, struct error *err)
{
    static const struct openai_member MEMBERS[] = {{"model", NULL},
                                                   {"content", NULL},
                                                   {"prompt", NULL},
                                                   {"add_special", NULL},
                                                   {"add_special_tokens", NULL},
                                                   {NULL, NULL}};
    if (openai_check_members(root, NULL, MEMBERS, NULL, err) != 0)
        return -1;
    const bool prompt = is_given(root, "prompt");
    if (prompt && is_given(root, "content"))
        return error_set(err, ERROR_INVALID, "'content' and 'prompt' are the same, expected one");
    request->add_special = prompt;
    if (member_bool(root, NULL, "add_special_tokens", &request->add_special, err) != 0)
        return -1;
    return read_text(root, prompt ? "prompt" : "content", false, request, err);
}

static int read_detokenize(const json_t *root, struct openai_text *request, struct error *err)
{
    static const struct openai_member MEMBERS[] = {{"model", NULL}, {"tokens", NULL}, {NULL, NULL}};
    if (openai_check_members(root, NULL, MEMBERS, NULL, err) != 0)
        return -1;
    return read_text(root, "tokens", true, request, err);
}

static int read_body(const char *body, size_t length,
                     int (*members)(const json_t *root, struct openai_text *request,
                                    struct error *err),
                     struct openai_text *request, struct error *err)
{
    *request = (struct openai_text){.root = openai_body(body, length, err)};
    if (request->root && members(request->root, request, err) == 0)
        return 0;
    openai_text_close(request);
    return -1;
}

int openai_read_tokenize(const char *body, size_t length, struct openai_text *request,
                         struct error *err)
{
    return read_body(body, length, read_tokenize, request, err);
}

int openai_read_detokenize(const char *body, size_t length, struct openai_text *request,
                           struct error *err)
{
    return read_body(body, length, read_detokenize, request, err);
}

void openai_text_close(struct openai_text *request)
{
    openai_prompts_close(&request->input);
    json_decref(request->root);
    *request = (struct openai_text){0};
}
