/* Answers and events. Both are made of the same choices; a chat's text is a message in an answer
 * and a delta in an event. */
#include <inttypes.h>
#include <string.h>

#include "proto/base64.h"
#include "proto/json.h"
#include "proto/openai_parts.h"

static void append_quoted(struct buffer *body, const char *text, size_t length)
{
    buffer_text(body, "\"");
    json_append_text(body, text, length);
    buffer_text(body, "\"");
}

/* ---- choices ---- */

static void append_text(const struct openai_choice *choice, struct buffer *body)
{
    append_quoted(body, choice->text ? choice->text : "", choice->length);
}

static void append_message(const struct openai_choice *choice, struct buffer *body)
{
    buffer_text(body, "\"message\":{\"role\":\"assistant\",\"content\":");
    append_text(choice, body);
    buffer_text(body, ",\"refusal\":null}");
}

static void append_delta(const struct openai_choice *choice, bool first, struct buffer *body)
{
    buffer_text(body, first ? "\"delta\":{\"role\":\"assistant\"" : "\"delta\":{");
    if (first || choice->length > 0) {
        buffer_text(body, first ? ",\"content\":" : "\"content\":");
        append_text(choice, body);
    }
    buffer_text(body, "}");
}

static void append_rest(const struct openai_answer *answer, const struct openai_choice *choice,
                        struct buffer *body)
{
    static const char *const FINISH[] = {"null", "\"stop\"", "\"length\""};
    buffer_text(body, ",\"logprobs\":");
    if (choice->logprobs)
        openai_write_logprobs(answer, choice, body);
    else
        buffer_text(body, "null");
    buffer_format(body, ",\"finish_reason\":%s", FINISH[choice->finish]);
    if (choice->token_ids) {
        buffer_text(body, ",\"token_ids\":[");
        json_append_integers(body, choice->token_ids, choice->token_count);
        buffer_text(body, "]");
    }
    if (choice->routing)
        openai_write_routing(choice->routing, body);
    buffer_text(body, "}");
}

static void begin_choice(const struct openai_choice *choice, struct buffer *body)
{
    buffer_format(body, "{\"index\":%zu,", choice->index);
}

static void append_completed(const struct openai_choice *choice, struct buffer *body)
{
    buffer_text(body, "\"text\":");
    append_text(choice, body);
}

/* ---- documents ---- */

static void begin(const struct openai_answer *answer, const char *chat, struct buffer *body)
{
    buffer_text(body, "{\"id\":");
    json_append_string(body, answer->id);
    buffer_format(body, ",\"object\":\"%s\",\"created\":%" PRId64 ",\"model\":",
                  answer->chat ? chat : "text_completion", answer->created);
    json_append_string(body, answer->model);
    if (answer->experts) {
        buffer_text(body, ",\"experts\":");
        buffer_text(body, answer->experts);
    }
    buffer_text(body, ",\"choices\":[");
}

static void append_usage(const struct openai_usage *usage, struct buffer *body)
{
    buffer_format(body,
                  ",\"usage\":{\"prompt_tokens\":%zu,\"completion_tokens\":%zu,"
                  "\"total_tokens\":%zu,\"prompt_tokens_details\":{\"cached_tokens\":%zu}}",
                  usage->prompt_tokens, usage->completion_tokens,
                  usage->prompt_tokens + usage->completion_tokens, usage->cached_tokens);
}

void openai_write_answer(const struct openai_answer *answer, const struct openai_choice *choices,
                         size_t count, const struct openai_usage *usage, struct buffer *body)
{
    begin(answer, "chat.completion", body);
    for (size_t i = 0; i < count; i++) {
        if (i > 0)
            buffer_text(body, ",");
        begin_choice(&choices[i], body);
        if (answer->chat)
            append_message(&choices[i], body);
        else
            append_completed(&choices[i], body);
        append_rest(answer, &choices[i], body);
    }
    buffer_text(body, "]");
    append_usage(usage, body);
    buffer_text(body, "}");
}

void openai_write_chunk(const struct openai_answer *answer, const struct openai_choice *choice,
                        bool first, bool null_usage, struct buffer *body)
{
    buffer_text(body, "data: ");
    begin(answer, "chat.completion.chunk", body);
    begin_choice(choice, body);
    if (answer->chat)
        append_delta(choice, first, body);
    else
        append_completed(choice, body);
    append_rest(answer, choice, body);
    buffer_text(body, null_usage ? "],\"usage\":null}\n\n" : "]}\n\n");
}

void openai_write_usage_chunk(const struct openai_answer *answer, const struct openai_usage *usage,
                              struct buffer *body)
{
    buffer_text(body, "data: ");
    begin(answer, "chat.completion.chunk", body);
    buffer_text(body, "]");
    append_usage(usage, body);
    buffer_text(body, "}\n\n");
}

void openai_write_done(struct buffer *body)
{
    buffer_text(body, "data: [DONE]\n\n");
}

/* ---- other documents ---- */

void openai_write_embeddings(const char *model, const struct openai_vectors *vectors,
                             size_t prompt_tokens, struct buffer *body)
{
    buffer_text(body, "{\"object\":\"list\",\"data\":[");
    for (size_t i = 0; i < vectors->count; i++) {
        const float *values = vectors->values + i * vectors->dimensions;
        buffer_format(body, "%s{\"object\":\"embedding\",\"index\":%zu,\"embedding\":%s",
                      i ? "," : "", i, vectors->base64 ? "\"" : "[");
        if (vectors->base64)
            base64_append(body, values, vectors->dimensions * sizeof *values);
        else
            json_append_floats(body, values, vectors->dimensions);
        buffer_text(body, vectors->base64 ? "\"}" : "]}");
    }
    buffer_text(body, "],\"model\":");
    json_append_string(body, model);
    buffer_format(body, ",\"usage\":{\"prompt_tokens\":%zu,\"total_tokens\":%zu}}", prompt_tokens,
                  prompt_tokens);
}

void openai_write_tokens(const int32_t *ids, size_t count, struct buffer *body)
{
    buffer_text(body, "{\"tokens\":[");
    json_append_integers(body, ids, count);
    buffer_text(body, "]}");
}

void openai_write_content(const char *text, size_t length, struct buffer *body)
{
    buffer_text(body, "{\"content\":");
    append_quoted(body, text, length);
    buffer_text(body, "}");
}

void openai_write_prompt(const char *text, size_t length, struct buffer *body)
{
    buffer_text(body, "{\"prompt\":");
    append_quoted(body, text, length);
    buffer_text(body, "}");
}

static void write_capabilities(const struct openai_model *model, struct buffer *body)
{
    static const char *const NAMES[] = {"completion", "chat", "embedding"};
    const bool has[] = {model->generates, model->chats, model->embeds};
    size_t written = 0;
    for (size_t i = 0; i < sizeof has / sizeof *has; i++)
        if (has[i])
            buffer_format(body, "%s\"%s\"", written++ ? "," : ",\"capabilities\":[", NAMES[i]);
    if (written > 0)
        buffer_text(body, "]");
}

void openai_write_model_members(const struct openai_model *model, struct buffer *body)
{
    buffer_text(body, "\"id\":");
    json_append_string(body, model->name);
    buffer_format(body, ",\"object\":\"model\",\"created\":%" PRId64 ",\"owned_by\":\"moed\"",
                  model->created);
    if (model->context > 0)
        buffer_format(body, ",\"max_model_len\":%zu", model->context);
    write_capabilities(model, body);
}

void openai_write_models(const struct openai_model *models, size_t count, struct buffer *body)
{
    buffer_text(body, "{\"object\":\"list\",\"data\":[");
    for (size_t i = 0; i < count; i++) {
        buffer_text(body, i ? ",{" : "{");
        openai_write_model_members(&models[i], body);
        buffer_text(body, "}");
    }
    buffer_text(body, "],\"models\":[");
    for (size_t i = 0; i < count; i++) {
        if (i > 0)
            buffer_text(body, ",");
        json_append_string(body, models[i].name);
    }
    buffer_text(body, "]}");
}

/* ---- errors ---- */

/* What kind of error a client sees, and the code that it may act on. */
static void error_kind(enum error_code error, const char **type, const char **code)
{
    *type = "invalid_request_error";
    *code = NULL;
    switch (error) {
    case ERROR_CONTEXT:
        *code = "context_length_exceeded";
        break;
    case ERROR_NOT_FOUND:
        *code = "model_not_found";
        break;
    case ERROR_OVERLOADED:
        *type = "rate_limit_error";
        *code = "rate_limit_exceeded";
        break;
    case ERROR_TIMEOUT:
    case ERROR_DEADLINE:
        *type = "timeout";
        break;
    case ERROR_INTERNAL:
    case ERROR_UNAVAILABLE:
        *type = "server_error";
        break;
    default:
        break;
    }
}

/* The name in quotes that a message begins with; its length, 0: it begins with none. */
static size_t param_of(const char *message)
{
    /* those of "topK" and "max-tokens", too, and "messages[0].content" */
    static const char ALPHABET[] = "abcdefghijklmnopqrstuvwxyz_0123456789"
                                   "ABCDEFGHIJKLMNOPQRSTUVWXYZ-[].";
    size_t length = *message == '\'' ? strspn(message + 1, ALPHABET) : 0;
    return length > 0 && message[length + 1] == '\'' ? length : 0;
}

void openai_write_error(const struct error *err, struct buffer *body)
{
    const char *type, *code;
    size_t param = param_of(err->text);
    error_kind(err->code, &type, &code);
    buffer_text(body, "{\"error\":{\"message\":");
    json_append_string(body, err->text);
    buffer_format(body, ",\"type\":\"%s\",\"param\":", type);
    buffer_format(body, param ? "\"%.*s\"" : "null", (int)param, err->text + 1);
    buffer_format(body, code ? ",\"code\":\"%s\"}}" : ",\"code\":null}}", code);
}

void openai_write_error_chunk(const struct error *err, struct buffer *body)
{
    buffer_text(body, "data: ");
    openai_write_error(err, body);
    buffer_text(body, "\n\n");
}
