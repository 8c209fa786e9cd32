/* Log probabilities in OpenAI's two shapes. JSON has no infinity: what is impossible has -9999, as
 * in other servers. A prompt's first token has none at all: null. */
#include <math.h>
#include <string.h>

#include "proto/json.h"
#include "proto/openai_parts.h"
#include "proto/text/unicode.h"

/* A character has four bytes; a token, TOKEN_MAX_BYTES and what decoding makes of it. */
enum { TOKEN_BYTES_LIMIT = 1 << 16 };

static void append_logprob(struct buffer *body, float logprob)
{
    if (isnan(logprob))
        buffer_text(body, "null");
    else
        json_append_floats(body, (float[]){isinf(logprob) ? -9999.0f : logprob}, 1);
}

/* The bytes of a token; its number where there is no text. */
static void token_bytes(const struct openai_answer *answer, int32_t token, struct buffer *bytes)
{
    bytes->length = 0;
    if (answer->language)
        language_token_bytes(answer->language, token, bytes);
    else
        buffer_format(bytes, "token_id:%d", (int)token);
}

/* Part of a character is written as OpenAI's completions write it: "bytes:\xE2\x82". */
static void append_token(struct buffer *body, const struct buffer *bytes, bool chat)
{
    const char *text = bytes->data ? bytes->data : "";
    buffer_text(body, "\"");
    if (chat || unicode_check(text, bytes->length) == bytes->length) {
        json_append_text(body, text, bytes->length);
    } else {
        buffer_text(body, "bytes:");
        for (size_t i = 0; i < bytes->length; i++)
            buffer_format(body, "\\\\x%02x", (unsigned char)text[i]);
    }
    buffer_text(body, "\"");
}

static void comma(struct buffer *body, size_t index)
{
    if (index > 0)
        buffer_text(body, ",");
}

/* ---- completions ---- */

static void append_tokens(const struct openai_answer *answer, const struct openai_choice *choice,
                          struct buffer *bytes, struct buffer *body)
{
    buffer_text(body, "{\"tokens\":[");
    for (size_t i = 0; i < choice->token_count; i++) {
        comma(body, i);
        token_bytes(answer, choice->tokens[i].token, bytes);
        append_token(body, bytes, false);
    }
    buffer_text(body, "],\"text_offset\":[");
    for (size_t i = 0; i < choice->token_count; i++) {
        comma(body, i);
        buffer_format(body, "%d", choice->text_offsets ? (int)choice->text_offsets[i] : 0);
    }
    buffer_text(body, "],\"token_logprobs\":[");
    for (size_t i = 0; i < choice->token_count; i++) {
        comma(body, i);
        append_logprob(body, choice->tokens[i].logprob);
    }
}

/* {"token": logprob, ...} */
static void append_alternatives(const struct openai_answer *answer,
                                const struct sampler_choice *token, struct buffer *bytes,
                                struct buffer *body)
{
    if (token->top_count == 0)
        return buffer_text(body, "null");
    for (size_t i = 0; i < token->top_count; i++) {
        buffer_text(body, i == 0 ? "{" : ",");
        token_bytes(answer, token->top[i].token, bytes);
        append_token(body, bytes, false);
        buffer_text(body, ":");
        append_logprob(body, token->top[i].logprob);
    }
    buffer_text(body, "}");
}

static bool has_alternatives(const struct openai_choice *choice)
{
    for (size_t i = 0; i < choice->token_count; i++)
        if (choice->tokens[i].top_count > 0)
            return true;
    return false;
}

static void append_completion(const struct openai_answer *answer,
                              const struct openai_choice *choice, struct buffer *bytes,
                              struct buffer *body)
{
    append_tokens(answer, choice, bytes, body);
    if (!has_alternatives(choice)) /* "logprobs": 0 */
        return buffer_text(body, "],\"top_logprobs\":null}");
    buffer_text(body, "],\"top_logprobs\":[");
    for (size_t i = 0; i < choice->token_count; i++) {
        comma(body, i);
        append_alternatives(answer, &choice->tokens[i], bytes, body);
    }
    buffer_text(body, "]}");
}

/* ---- chats ---- */

/* "token": ..., "logprob": ..., "bytes": [...] */
static void append_members(const struct openai_answer *answer, int32_t token, float logprob,
                           struct buffer *bytes, struct buffer *body)
{
    token_bytes(answer, token, bytes);
    buffer_text(body, "{\"token\":");
    append_token(body, bytes, true);
    buffer_text(body, ",\"logprob\":");
    append_logprob(body, logprob);
    buffer_text(body, ",\"bytes\":[");
    for (size_t i = 0; i < bytes->length; i++)
        buffer_format(body, i ? ",%d" : "%d", (unsigned char)bytes->data[i]);
    buffer_text(body, "]");
}

static void append_chat(const struct openai_answer *answer, const struct openai_choice *choice,
                        struct buffer *bytes, struct buffer *body)
{
    buffer_text(body, "{\"content\":[");
    for (size_t i = 0; i < choice->token_count; i++) {
        const struct sampler_choice *token = &choice->tokens[i];
        comma(body, i);
        append_members(answer, token->token, token->logprob, bytes, body);
        buffer_text(body, ",\"top_logprobs\":[");
        for (size_t j = 0; j < token->top_count; j++) {
            comma(body, j);
            append_members(answer, token->top[j].token, token->top[j].logprob, bytes, body);
            buffer_text(body, "}");
        }
        buffer_text(body, "]}");
    }
    buffer_text(body, "],\"refusal\":null}");
}

void openai_write_logprobs(const struct openai_answer *answer, const struct openai_choice *choice,
                           struct buffer *body)
{
    struct buffer bytes;
    buffer_init(&bytes, TOKEN_BYTES_LIMIT);
    if (answer->chat)
        append_chat(answer, choice, &bytes, body);
    else
        append_completion(answer, choice, &bytes, body);
    buffer_fail_with(body, &bytes);
    buffer_close(&bytes);
}
