/* From a body to prompts of tokens. On any thread: it uses nothing but the request, its catalog and
 * models, which do not change. */
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "core/text.h"
#include "proto/overrides.h"
#include "proto/text/unicode.h"
#include "server/routes/generation.h"
#include "server/routes/openai.h"

/* Answers without a max_tokens: OpenAI's for completions; a chat's may fill the context, but not
 * reserve all of a long one. */
enum { COMPLETION_TOKENS = 16, CHAT_TOKENS = 1024 };

/* What has the prompts, by kind. */
static const char *const PROMPTS[] = {"prompt", "messages", "input"};

static int read_embeddings(struct generation *generation, const char *body, size_t length,
                           struct error *err)
{
    if (openai_read_embeddings(body, length, &generation->embeddings, err) != 0)
        return -1;
    generation->plain = (struct openai_generation){.model = generation->embeddings.model,
                                                   .user = generation->embeddings.user,
                                                   .priority = generation->embeddings.priority};
    generation->request = &generation->plain;
    return 0;
}

static int read_body(struct generation *generation, struct error *err)
{
    const struct exchange *exchange = generation->exchange;
    const char *body = exchange->body ? exchange->body : "";
    const size_t length = exchange->body_length;
    if (generation->kind == GENERATE_EMBEDDINGS)
        return read_embeddings(generation, body, length, err);
    if (generation->kind == GENERATE_CHAT) {
        if (openai_read_chat(body, length, &generation->conversation, err) != 0)
            return -1;
        generation->request = &generation->conversation.generation;
        return 0;
    }
    if (openai_read_completion(body, length, &generation->completion, err) != 0)
        return -1;
    generation->request = &generation->completion.generation;
    return 0;
}

/* So that the refusal counts as the model's that was asked. */
static void find_refused_model(struct generation *generation)
{
    const struct exchange *exchange = generation->exchange;
    struct error unknown = ERROR_INIT;
    char *name = openai_model_of(exchange->body ? exchange->body : "", exchange->body_length);
    struct model *model = openai_find_model(generation->catalog, name, &unknown);
    if (model)
        generation->model = model_hold(model);
    free(name);
}

/* Whether it does what is asked of it. */
static int check_model(const struct generation *generation, const struct model *model,
                       struct error *err)
{
    const size_t dimensions = generation->embeddings.dimensions;
    if (generation->kind != GENERATE_EMBEDDINGS)
        return model_generates(model)
                   ? 0
                   : error_set(err, ERROR_INVALID,
                               "'model': '%s' generates no text: it has no output over its tokens "
                               "that knows only earlier ones",
                               model->name);
    if (!model_embeds(model))
        return error_set(err, ERROR_INVALID, "'model': '%s' has no embeddings: it is no encoder",
                         model->name);
    if (dimensions > model->info->outputs[0].elements)
        return error_set(err, ERROR_INVALID,
                         "'dimensions' is %zu, expected at most %zu, which '%s' has", dimensions,
                         model->info->outputs[0].elements, model->name);
    return 0;
}

static int find_model(struct generation *generation, struct error *err)
{
    struct model *model = openai_find_model(generation->catalog, generation->request->model, err);
    if (!model)
        return -1;
    generation->model = model_hold(model);
    if (check_model(generation, model, err) != 0)
        return -1;
    if (generation->request->stop_count > 0 && !model->language)
        return error_set(err, ERROR_INVALID,
                         "'stop': model '%s' has no tokenizer, and answers with token ids",
                         model->name);
    return openai_check_tokens(generation->request, model_vocabulary(model), err);
}

/* ---- prompts ---- */

/* What cannot fit is not tokenized first. */
static int check_length(const struct model *model, const char *text, size_t length,
                        struct error *err)
{
    const size_t fewest = language_fewest(model->language, text, length);
    if (fewest <= model->info->context)
        return 0;
    return error_set(
        err, ERROR_CONTEXT,
        "%zu byte%s of prompt, at least %zu token%s, exceed the model's context of %zu "
        "tokens",
        length, text_s(length), fewest, text_s(fewest), model->info->context);
}

static int encode(struct choice *choice, const char *text, size_t length, bool special,
                  struct error *err)
{
    const struct model *model = choice->generation->model;
    struct token_ids tokens;
    if (!model->language)
        return error_set(err, ERROR_INVALID, "'%s': model '%s' has no tokenizer: give token ids",
                         PROMPTS[choice->generation->kind], model->name);
    if (check_length(model, text, length, err) != 0 ||
        language_encode(model->language, text, length, special, &tokens, err) != 0)
        return -1;
    choice->sequence.tokens = tokens.ids;
    choice->sequence.prompt = tokens.count;
    return 0;
}

static int copy_ids(struct sequence *sequence, const struct openai_prompt *prompt,
                    struct error *err)
{
    sequence->prompt = prompt->count;
    sequence->tokens = calloc_checked(prompt->count, sizeof *sequence->tokens, err);
    if (!sequence->tokens)
        return -1;
    memcpy(sequence->tokens, prompt->ids, prompt->count * sizeof *sequence->tokens);
    return 0;
}

static int echo(struct choice *choice, const struct model *model,
                const struct openai_prompt *prompt, struct error *err)
{
    const struct token_ids tokens = {choice->sequence.tokens, choice->sequence.prompt};
    if (!model->language)
        return 0;
    if (prompt->text)
        buffer_append(&choice->text, prompt->text, prompt->length);
    else if (language_decode(model->language, prompt->ids, prompt->count, true, &choice->text,
                             err) != 0)
        return -1;
    choice->echoed = unicode_count(choice->text.data, choice->text.length);
    if (!choice->generation->request->logprobs)
        return 0;
    choice->offsets = calloc_checked(tokens.count + 1, sizeof *choice->offsets, err);
    return choice->offsets ? language_locate(model->language, &tokens, prompt->text, prompt->length,
                                             choice->offsets, err)
                           : -1;
}

static int read_prompt(struct choice *choice, const struct openai_prompt *prompt, struct error *err)
{
    const struct generation *generation = choice->generation;
    const struct model *model = generation->model;
    const int failed = prompt->text ? encode(choice, prompt->text, prompt->length, true, err)
                                    : copy_ids(&choice->sequence, prompt, err);
    if (failed)
        return -1;
    return generation->completion.echo ? echo(choice, model, prompt, err) : 0;
}

static int render(struct choice *choice, struct error *err)
{
    struct generation *generation = choice->generation;
    const struct model *model = generation->model;
    struct buffer text;
    buffer_init(&text, TOKENIZER_MAX_TEXT_BYTES);
    int result = openai_render_chat(model, &generation->conversation, &text, err);
    if (result == 0)
        result = encode(choice, text.data, text.length, false, err);
    buffer_close(&text);
    return result;
}

/* ---- choices ---- */

/* An output may tell of fewer tokens than there are: tables are padded. */
static int check_scored(const struct choice *choice, struct error *err)
{
    const struct sequence *sequence = &choice->sequence;
    const size_t told = choice->generation->model->info->outputs[0].elements;
    for (size_t i = 1; i < sequence->prompt; i++)
        if ((size_t)sequence->tokens[i] >= told)
            return error_set(err, ERROR_INVALID,
                             "'logprobs': token %d of the prompt is not among the %zu of which the "
                             "model tells how likely they are",
                             (int)sequence->tokens[i], told);
    return 0;
}

static int init_choice(struct choice *choice, const struct sampler_options *sampling,
                       struct error *err)
{
    const struct generation *generation = choice->generation;
    const struct openai_generation *request = generation->request;
    const struct language *language = generation->model->language;
    struct sequence *sequence = &choice->sequence;
    if (sequence->prompt == 0)
        return error_set(err, ERROR_INVALID, "'%s': there are no tokens in it",
                         PROMPTS[generation->kind]);
    sequence->sampling = *sampling;
    sequence->scores = request->logprobs;
    sequence->scores_prompt = request->logprobs && generation->completion.echo;
    sequence->top = request->top_logprobs;
    sequence->keeps_routing = request->routing != OPENAI_ROUTING_NONE;
    if (generation->kind == GENERATE_EMBEDDINGS) {
        const size_t size = generation->model->info->outputs[0].elements;
        sequence->vector = calloc_checked(size, sizeof *sequence->vector, err);
        return sequence->vector ? 0 : -1;
    }
    if (sequence->scores_prompt && check_scored(choice, err) != 0)
        return -1;
    choice->tokens = sequence->prompt;
    choice->tokens_sent = generation->completion.echo ? 0 : sequence->prompt;
    if (!language)
        return 0;
    if (text_stream_init(&choice->stream, language, request->stops, request->stop_count, err) != 0)
        return -1;
    choice->has_stream = true;
    return 0;
}

static int make_choices(struct generation *generation, struct error *err)
{
    const struct model *model = generation->model;
    const bool chat = generation->kind == GENERATE_CHAT;
    const struct openai_prompts *prompts = generation->kind == GENERATE_EMBEDDINGS
                                               ? &generation->embeddings.prompts
                                               : &generation->completion.prompts;
    const struct sampler_options *recommended =
        model->language ? language_sampling(model->language) : &SAMPLER_DEFAULTS;
    uint64_t seed = 0;
    if (uv_random(NULL, NULL, &seed, sizeof seed, 0, NULL) != 0)
        seed = uv_hrtime(); /* better than the same text for everybody */
    const struct sampler_options sampling =
        openai_sampler_options(&generation->request->sampling, recommended, seed);
    if (!chat &&
        openai_check_ids(prompts, generation->kind == GENERATE_EMBEDDINGS ? "input" : "prompt",
                         model_vocabulary(model), err) != 0)
        return -1;
    generation->choice_count = chat ? 1 : prompts->count;
    generation->choices = xcalloc(generation->choice_count, sizeof *generation->choices);
    for (size_t i = 0; i < generation->choice_count; i++) {
        generation->choices[i].generation = generation;
        generation->choices[i].index = i;
        buffer_init(&generation->choices[i].text, generation->all->max_response_bytes);
    }
    for (size_t i = 0; i < generation->choice_count; i++) {
        struct choice *choice = &generation->choices[i];
        const int failed =
            chat ? render(choice, err) : read_prompt(choice, &prompts->items[i], err);
        if (failed || init_choice(choice, &sampling, err) != 0)
            return -1;
    }
    return 0;
}

int generation_prepare(struct generation *generation, struct error *err)
{
    int failed = read_body(generation, err) != 0;
    if (failed)
        find_refused_model(generation);
    else
        failed = find_model(generation, err) != 0;
    if (!failed)
        failed = attribution_read(&generation->attribution, generation->exchange,
                                  generation->request->user, err) != 0;
    if (!failed && generation->request->experts)
        failed = overrides_read(generation->request->experts, &generation->model->signature,
                                &generation->overrides, err) != 0;
    if (!failed)
        failed = make_choices(generation, err) != 0;
    return failed ? -1 : 0;
}

/* ---- on the loop's thread ---- */

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

static int resize(int32_t **list, size_t tokens, struct error *err)
{
    int32_t *resized = realloc(*list, tokens * sizeof *resized);
    if (!resized)
        return error_set(err, ERROR_UNAVAILABLE, "no memory for %zu token%s", tokens,
                         text_s(tokens));
    *list = resized;
    return 0;
}

int generation_set_limit(struct choice *choice, struct error *err)
{
    const struct generation *generation = choice->generation;
    struct sequence *sequence = &choice->sequence;
    size_t wanted = generation->request->max_tokens;
    if (wanted == SIZE_MAX) {
        const size_t most = sequences_most(generation->lane);
        const size_t room = most > sequence->prompt ? most - sequence->prompt : 1;
        wanted = least(generation->kind == GENERATE_CHAT ? CHAT_TOKENS : COMPLETION_TOKENS, room);
    }
    sequence->limit = sequence->prompt + wanted;
    if (sequences_check(generation->lane, sequence->prompt, sequence->limit, err) != 0)
        return -1;
    const bool located = generation->kind == GENERATE_COMPLETION && generation->request->logprobs;
    if (resize(&sequence->tokens, sequence->limit, err) != 0)
        return -1;
    return located && choice->has_stream ? resize(&choice->offsets, sequence->limit, err) : 0;
}
