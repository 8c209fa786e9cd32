/* What the parts of OpenAI's API have in common. */
#include "server/routes/openai.h"

#include <string.h>
#include <time.h>

/* ---- models ---- */

static bool is_language_model(const struct model *model)
{
    return model_has_sequences(model);
}

/* The newest version of the only name under which there is one. */
static struct model *only_model(const struct catalog *catalog, struct error *err)
{
    struct model *only = NULL;
    for (size_t i = 0; i < catalog->count; i++) {
        struct model *model = catalog->models[i];
        if (!is_language_model(model))
            continue;
        if (only && strcmp(only->name, model->name) != 0) {
            error_set(err, ERROR_INVALID,
                      "'model' is missing, and there are several: '%.100s', '%.100s'", only->name,
                      model->name);
            return NULL;
        }
        only = model;
    }
    if (!only)
        error_set(err, ERROR_NOT_FOUND, "'model' is missing, and no language model is served");
    return only ? catalog_find(catalog, only->name, NULL, err) : NULL;
}

struct model *openai_find_model(const struct catalog *catalog, const char *name, struct error *err)
{
    if (!name)
        return only_model(catalog, err);
    struct model *model = catalog_find(catalog, name, NULL, err);
    if (!model) {
        error_prefix(err, "'model'");
        return NULL;
    }
    if (is_language_model(model))
        return model;
    error_set(err, ERROR_INVALID,
              "'model': '%.100s' is no language model; ask it at /v2/models/%.100s/infer", name,
              name);
    return NULL;
}

/* Where models lie is nothing for clients: "/srv/m/tokenizer_config.json: ..." without the path. */
static const char *without_directory(const char *reason)
{
    const char *colon = strchr(reason, ':'), *name = reason;
    for (const char *c = reason; colon && c < colon; c++)
        name = *c == '/' ? c + 1 : name;
    return name;
}

int openai_render_chat(const struct model *model, const struct openai_chat *chat,
                       struct buffer *text, struct error *err)
{
    if (!model->language)
        return error_set(err, ERROR_INVALID, "'model': '%s' has no tokenizer", model->name);
    if (language_chat_refusal(model->language))
        return error_set(err, ERROR_INVALID, "'model': '%s' has no chats: %s", model->name,
                         without_directory(language_chat_refusal(model->language)));
    if (language_render(model->language, chat->variables, time(NULL), text, err) != 0) {
        error_prefix(err, "the model's chat template");
        return -1;
    }
    return text->failed ? buffer_error(text, "the chat", "send fewer messages", err) : 0;
}
