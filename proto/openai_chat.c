/* Chats: messages become what templates of published models expect, contents as plain strings. */
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "proto/openai_body.h"

/* Of a chat, beside those of completions. */
static const struct openai_member OWN[] = {
    {"messages", NULL},
    {"logprobs", NULL},
    {"top_logprobs", NULL},
    {"reasoning_effort", NULL},
    {"chat_template_kwargs", NULL},
    {"add_generation_prompt", NULL},
    /* would change an answer, and are not there */
    {"tools", ""},
    {"tool_choice", "none auto"},
    {"functions", ""},
    {"function_call", "none auto"},
    {"audio", ""},
    {"modalities", "text"},
    {"prediction", ""},
    {"web_search_options", ""},
    {"verbosity", "medium"},
    /* of other servers */
    {"echo", ""},
    {"chat_template", ""},
    {"continue_final_message", ""},
    {"documents", ""},
    {NULL, NULL},
};

/* Of a message; a call's arguments are text here and an object in templates. */
static const struct openai_member UNSUPPORTED_OF_MESSAGE[] = {
    {"tool_calls", ""},
    {"function_call", ""},
    {"audio", ""},
    {NULL, NULL},
};

enum { WHERE_BYTES = 64 };

/* ---- messages ---- */

/* Appends the text of one part of a content. */
static int append_part(const json_t *part, const char *where, struct buffer *text,
                       struct error *err)
{
    const char *type = json_string_value(json_object_get(part, "type"));
    const json_t *content = json_object_get(part, "text");
    if (!type || strcmp(type, "text") != 0)
        return error_set(err, ERROR_INVALID,
                         "'messages' has a part of type " QUOTED " in %s, expected only text",
                         type ? type : "(none)", where);
    if (!json_is_string(content))
        return error_set(err, ERROR_INVALID, "'messages' has a part without a string 'text' in %s",
                         where);
    buffer_append(text, json_string_value(content), json_string_length(content));
    return 0;
}

/* Text parts as one string, a line break between them; NULL with an error. */
static json_t *join_parts(const json_t *parts, const char *where, struct error *err)
{
    struct buffer text;
    size_t index;
    json_t *part, *joined = NULL;
    int result = 0;
    buffer_init(&text, OPENAI_MAX_TREE);
    json_array_foreach((json_t *)parts, index, part)
    {
        if (index > 0)
            buffer_text(&text, "\n");
        result = append_part(part, where, &text, err);
        if (result != 0)
            break;
    }
    if (result == 0 && text.failed)
        (void)buffer_error(&text, "the text of a message", "send less", err);
    else if (result == 0)
        joined = json_stringn(text.data ? text.data : "", text.length);
    buffer_close(&text);
    return joined;
}

/* The content as templates read it: a string; None for an answer without one. A new reference; NULL
 * with an error. */
static json_t *read_content(const json_t *message, const char *role, const char *where,
                            struct error *err)
{
    json_t *content = json_object_get(message, "content");
    if (json_is_array(content))
        return join_parts(content, where, err);
    if (json_is_string(content))
        return json_incref(content);
    if (json_is_null(content) && strcmp(role, "assistant") == 0)
        return json_null();
    if (!content || json_is_null(content)) {
        error_set(err, ERROR_INVALID,
                  "'%s.content' is %s, expected a string or a list of text parts", where,
                  content ? "null" : "missing");
        return NULL;
    }
    error_set(err, ERROR_INVALID,
              "'messages' has %s as the content of %s, expected a string or a list of text parts",
              member_type(content), where);
    return NULL;
}

/* "developer" is OpenAI's newer name of "system", the one that templates know. */
static const char *role_of(const json_t *message)
{
    const char *role = json_string_value(json_object_get(message, "role"));
    return role && strcmp(role, "developer") == 0 ? "system" : role;
}

/* A copy of a message; NULL with an error. */
static json_t *read_message(const json_t *message, size_t index, struct error *err)
{
    char where[WHERE_BYTES];
    snprintf(where, sizeof where, "messages[%zu]", index);
    const char *role = json_is_object(message) ? role_of(message) : NULL;
    if (!role) {
        error_set(err, ERROR_INVALID, "'messages' has %s at [%zu], expected an object with a role",
                  json_is_object(message) ? "a message without a role" : member_type(message),
                  index);
        return NULL;
    }
    if (openai_refuse_members(message, "'messages'", UNSUPPORTED_OF_MESSAGE, err) != 0)
        return NULL;
    json_t *content = read_content(message, role, where, err);
    if (!content)
        return NULL;
    json_t *copy = json_copy((json_t *)message);
    json_object_set_new(copy, "role", json_string(role));
    json_object_set_new(copy, "content", content);
    return copy;
}

static json_t *read_messages(const json_t *root, struct error *err)
{
    const json_t *messages = NULL;
    if (member_list(root, NULL, "messages", &messages, err) != 0)
        return NULL;
    if (json_array_size(messages) == 0) {
        error_set(err, ERROR_INVALID, "'messages' is %s, expected a list of messages",
                  messages ? "empty" : "missing");
        return NULL;
    }
    json_t *copies = json_array(), *message;
    size_t index;
    json_array_foreach((json_t *)messages, index, message)
    {
        json_t *copy = read_message(message, index, err);
        if (!copy) {
            json_decref(copies);
            return NULL;
        }
        json_array_append_new(copies, copy);
    }
    return copies;
}

/* ---- variables ---- */

/* "chat_template_kwargs": variables of the template, such as enable_thinking. */
static int read_kwargs(const json_t *root, json_t *variables, struct error *err)
{
    const json_t *kwargs = NULL;
    if (member_object(root, NULL, "chat_template_kwargs", &kwargs, err) != 0)
        return -1;
    const char *key;
    json_t *value;
    json_object_foreach ((json_t *)kwargs, key, value) {
        if (strcmp(key, "messages") == 0 || strcmp(key, "tools") == 0)
            return error_set(err, ERROR_INVALID, "'chat_template_kwargs' must not have '%s'", key);
        json_object_set(variables, key, value);
    }
    return 0;
}

/* As transformers calls a template: what is not there is None, and a turn of the model begins. */
static int read_variables(const json_t *root, json_t *variables, struct error *err)
{
    bool prompt = true;
    const char *effort = NULL;
    json_t *messages = read_messages(root, err);
    if (!messages)
        return -1;
    json_object_set_new(variables, "messages", messages);
    json_object_set_new(variables, "tools", json_null());
    json_object_set_new(variables, "documents", json_null());
    if (member_bool(root, NULL, "add_generation_prompt", &prompt, err) != 0 ||
        member_string(root, NULL, "reasoning_effort", &effort, err) != 0)
        return -1;
    json_object_set_new(variables, "add_generation_prompt", json_boolean(prompt));
    if (effort)
        json_object_set_new(variables, "reasoning_effort", json_string(effort));
    return read_kwargs(root, variables, err);
}

/* ---- the whole ---- */

static int read_logprobs(const json_t *root, struct openai_generation *generation,
                         struct error *err)
{
    if (member_bool(root, NULL, "logprobs", &generation->logprobs, err) != 0 ||
        openai_whole(root, "top_logprobs", 0, SAMPLER_MAX_TOP, &generation->top_logprobs, err) != 0)
        return -1;
    if (generation->top_logprobs > 0 && !generation->logprobs)
        return error_set(err, ERROR_INVALID, "'top_logprobs' is set, which needs 'logprobs': true");
    return 0;
}

int openai_read_chat(const char *body, size_t length, struct openai_chat *request,
                     struct error *err)
{
    *request = (struct openai_chat){0};
    struct openai_generation *generation = &request->generation;
    if (openai_generation_read(openai_body(body, length, err), OWN, 1, generation, err) != 0)
        return -1;
    request->variables = json_object();
    if (read_variables(generation->root, request->variables, err) == 0 &&
        read_logprobs(generation->root, generation, err) == 0)
        return 0;
    openai_chat_close(request);
    return -1;
}

void openai_chat_close(struct openai_chat *request)
{
    json_decref(request->variables);
    request->variables = NULL;
    openai_generation_close(&request->generation);
}
