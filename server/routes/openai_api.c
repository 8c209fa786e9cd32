/* Handlers. What turns text into tokens or back does so on one of libuv's threads if it is long. */
#include "server/routes/openai_api.h"

#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "proto/openai.h"
#include "proto/v1.h"
#include "server/background.h"
#include "server/routes/describe.h"
#include "server/routes/generation.h"
#include "server/routes/openai.h"

/* ---- models ---- */

static struct openai_model describe(const struct model *model)
{
    const bool generates = model_generates(model);
    return (struct openai_model){.name = model->name,
                                 .created = model->loaded,
                                 .context = model->info->context,
                                 .generates = generates,
                                 .chats = generates && model->language &&
                                          !language_chat_refusal(model->language),
                                 .embeds = model_embeds(model)};
}

void openai_models(const struct api *api, struct exchange *exchange, const struct target *target)
{
    (void)target;
    const struct catalog *catalog = api->lanes->catalog;
    struct openai_model *models = xcalloc(catalog->count, sizeof *models);
    size_t count = 0, first, last;
    for (size_t i = 0; i < catalog->count; i = last) {
        catalog_versions(catalog, catalog->models[i]->name, &first, &last);
        models[count++] = describe(catalog->models[last - 1]);
    }
    struct buffer body;
    describe_new(&body);
    openai_write_models(models, count, &body);
    free(models);
    describe_reply(exchange, 200, NULL, &body);
}

/* KServe's document with OpenAI's members in it. */
void openai_model(const struct api *api, struct exchange *exchange, const struct target *target)
{
    struct buffer body;
    size_t count;
    const char **versions = describe_versions(api, target, &count);
    describe_new(&body);
    v1_model_status(target->name, !*api->stopping && target->model, versions, count, &body);
    free(versions);
    if (target->model && !body.failed) {
        const struct openai_model model = describe(target->model);
        body.length--; /* the brace */
        buffer_text(&body, ",");
        openai_write_model_members(&model, &body);
        buffer_text(&body, "}");
    }
    describe_reply(exchange, target->model ? 200 : 503, NULL, &body);
}

/* ---- generations ---- */

void openai_completions(const struct api *api, struct exchange *exchange,
                        const struct target *target)
{
    (void)target;
    generation_request(api->generations, exchange, GENERATE_COMPLETION);
}

void openai_chat_completions(const struct api *api, struct exchange *exchange,
                             const struct target *target)
{
    (void)target;
    generation_request(api->generations, exchange, GENERATE_CHAT);
}

void openai_embeddings(const struct api *api, struct exchange *exchange,
                       const struct target *target)
{
    (void)target;
    generation_request(api->generations, exchange, GENERATE_EMBEDDINGS);
}

/* ---- text alone ---- */

enum { LONG_BODY_BYTES = 4 << 10 };

static const struct language *language_of(const struct catalog *catalog, const char *name,
                                          struct error *err)
{
    const struct model *model = openai_find_model(catalog, name, err);
    if (model && !model->language)
        error_set(err, ERROR_INVALID, "'model': '%s' has no tokenizer", model->name);
    return model ? model->language : NULL;
}

static int tokenize(const struct catalog *catalog, const struct openai_text *request,
                    struct buffer *body, struct error *err)
{
    const struct language *language = language_of(catalog, request->model, err);
    const struct openai_prompt *input = &request->input.items[0];
    struct token_ids tokens;
    if (!language || language_encode(language, input->text, input->length, request->add_special,
                                     &tokens, err) != 0)
        return -1;
    openai_write_tokens(tokens.ids, tokens.count, body);
    token_ids_close(&tokens);
    return 0;
}

static int make_tokens(const struct exchange *exchange, void *catalog, struct buffer *body,
                       struct error *err)
{
    struct openai_text request;
    if (openai_read_tokenize(exchange->body, exchange->body_length, &request, err) != 0)
        return -1;
    const int result = tokenize(catalog, &request, body, err);
    openai_text_close(&request);
    return result;
}

static int detokenize(const struct catalog *catalog, const struct openai_text *request,
                      struct buffer *body, struct error *err)
{
    const struct language *language = language_of(catalog, request->model, err);
    const struct openai_prompt *input = &request->input.items[0];
    struct buffer text;
    if (!language)
        return -1;
    buffer_init(&text, TOKENIZER_MAX_TEXT_BYTES);
    const int result = language_decode(language, input->ids, input->count, true, &text, err);
    if (result == 0)
        openai_write_content(text.data, text.length, body);
    else if (err->code == ERROR_INVALID)
        error_prefix(err, "'tokens'");
    buffer_close(&text);
    return result;
}

static int make_text(const struct exchange *exchange, void *catalog, struct buffer *body,
                     struct error *err)
{
    struct openai_text request;
    if (openai_read_detokenize(exchange->body, exchange->body_length, &request, err) != 0)
        return -1;
    const int result = detokenize(catalog, &request, body, err);
    openai_text_close(&request);
    return result;
}

static int make_prompt(const struct exchange *exchange, void *catalog, struct buffer *body,
                       struct error *err)
{
    struct openai_chat request;
    struct buffer text;
    if (openai_read_chat(exchange->body, exchange->body_length, &request, err) != 0)
        return -1;
    buffer_init(&text, TOKENIZER_MAX_TEXT_BYTES);
    const struct model *model = openai_find_model(catalog, request.generation.model, err);
    const int result = model ? openai_render_chat(model, &request, &text, err) : -1;
    if (result == 0)
        openai_write_prompt(text.data, text.length, body);
    buffer_close(&text);
    openai_chat_close(&request);
    return result;
}

static void release(void *catalog)
{
    catalog_release(catalog);
}

static void answer(const struct api *api, struct exchange *exchange, background_make *make)
{
    const bool is_long = exchange->body_length >= LONG_BODY_BYTES;
    background_answer(is_long ? api->generations->loop : NULL, exchange, make,
                      catalog_hold(api->lanes->catalog), release);
}

void openai_tokenize(const struct api *api, struct exchange *exchange, const struct target *target)
{
    (void)target;
    answer(api, exchange, make_tokens);
}

void openai_detokenize(const struct api *api, struct exchange *exchange,
                       const struct target *target)
{
    (void)target;
    answer(api, exchange, make_text);
}

void openai_apply_template(const struct api *api, struct exchange *exchange,
                           const struct target *target)
{
    (void)target;
    answer(api, exchange, make_prompt);
}
