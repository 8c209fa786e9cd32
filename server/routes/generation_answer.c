/* From tokens to text, and from text to an answer: one document, or events as they come. Events
 * that the client does not take wait here, and its sequences with them. */
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "server/routes/generation.h"
#include "server/routes/openai.h"

/* ---- text ---- */

/* The end of sequence, or a token that the request ends with. */
static bool ends(const struct generation *generation, int32_t token)
{
    const struct openai_generation *request = generation->request;
    const struct language *language = generation->model->language;
    for (size_t i = 0; i < request->stop_token_count; i++)
        if (request->stop_tokens[i] == token)
            return true;
    return language && !request->ignore_eos && language_is_stop(language, token);
}

/* What lacks a part is no answer. */
static bool text_has_failed(struct choice *choice)
{
    if (choice->text.failed)
        buffer_error(&choice->text, "an answer", "ask for fewer tokens",
                     &choice->generation->background.err);
    return choice->text.failed;
}

bool generation_add_token(struct choice *choice)
{
    struct generation *generation = choice->generation;
    const struct language *language = generation->model->language;
    const struct sequence *sequence = &choice->sequence;
    const int32_t token = sequence->tokens[sequence->count - 1];
    if (ends(generation, token)) {
        choice->finish = OPENAI_STOP;
        return false;
    }
    if (choice->offsets)
        choice->offsets[choice->tokens] = (int32_t)(choice->echoed + choice->stream.characters);
    choice->tokens++;
    choice->at_stop = language && text_stream_add(&choice->stream, token, &choice->text);
    return !text_has_failed(choice) && !choice->at_stop;
}

void generation_end_text(struct choice *choice)
{
    if (choice->has_stream && !choice->at_stop)
        choice->at_stop = text_stream_end(&choice->stream, &choice->text);
    if (text_has_failed(choice))
        return;
    if (choice->at_stop)
        choice->finish = OPENAI_STOP;
    else if (choice->finish == OPENAI_UNFINISHED)
        choice->finish = OPENAI_LENGTH;
    if (choice->generation->request->stream)
        generation_write_event(choice);
}

/* ---- routing ---- */

/* Of the rows of a choice that no earlier event had; the caller frees the layers. */
static struct openai_routing routing_of(const struct choice *choice)
{
    const size_t from = choice->rows_sent;
    const struct moed_model_info *info = choice->generation->model->info;
    const struct sequence *sequence = &choice->sequence;
    struct openai_routing_layer *layers = xcalloc(info->gate_count, sizeof *layers);
    for (size_t i = 0; i < info->gate_count; i++) {
        const size_t top_k = info->gates[i].top_k;
        layers[i] = (struct openai_routing_layer){
            .name = info->gates[i].name,
            .top_k = top_k,
            .experts = sequence->routing[i].experts + from * top_k,
            .weights = sequence->routing[i].weights + from * top_k,
        };
    }
    return (struct openai_routing){.form = choice->generation->request->routing,
                                   .tokens = sequence->rows - from,
                                   .layers = layers,
                                   .layer_count = info->gate_count};
}

static bool has_routing(const struct choice *choice)
{
    return choice->sequence.routing && choice->sequence.rows > choice->rows_sent;
}

/* ---- answers ---- */

/* What has not been sent of a choice. */
static struct openai_choice piece_of(const struct choice *choice,
                                     const struct openai_routing *routing)
{
    const struct sequence *sequence = &choice->sequence;
    const struct generation *generation = choice->generation;
    const size_t from = choice->tokens_sent;
    const bool logprobs = generation->request->logprobs;
    return (struct openai_choice){
        .index = choice->index,
        .text = choice->text.length > 0 ? choice->text.data + choice->text_sent : "",
        .length = choice->text.length - choice->text_sent,
        .finish = choice->finish,
        .logprobs = logprobs,
        .tokens = logprobs ? sequence->choices + from : NULL,
        .token_count = choice->tokens - from,
        .text_offsets = choice->offsets ? choice->offsets + from : NULL,
        .routing = has_routing(choice) ? routing : NULL,
        .token_ids = generation->model->language ? NULL : sequence->tokens + from,
    };
}

static struct openai_answer answer_of(const struct generation *generation)
{
    return (struct openai_answer){.id = generation->id,
                                  .model = generation->model->name,
                                  .created = generation->created,
                                  .language = generation->model->language,
                                  .experts = generation->overrides.text,
                                  .chat = generation->kind == GENERATE_CHAT};
}

static struct openai_usage usage_of(const struct generation *generation)
{
    struct openai_usage usage = {0};
    for (size_t i = 0; i < generation->choice_count; i++) {
        const struct sequence *sequence = &generation->choices[i].sequence;
        usage.prompt_tokens += sequence->prompt;
        usage.completion_tokens += sequence->count - sequence->prompt;
        usage.cached_tokens += sequence->cached;
    }
    return usage;
}

static void write_answer(const struct generation *generation, struct buffer *body)
{
    const size_t count = generation->choice_count;
    const struct openai_answer answer = answer_of(generation);
    const struct openai_usage usage = usage_of(generation);
    struct openai_choice *choices = xcalloc(count, sizeof *choices);
    struct openai_routing *routing = xcalloc(count, sizeof *routing);
    for (size_t i = 0; i < count; i++) {
        const struct choice *choice = &generation->choices[i];
        if (has_routing(choice))
            routing[i] = routing_of(choice);
        choices[i] = piece_of(choice, &routing[i]);
    }
    openai_write_answer(&answer, choices, count, &usage, body);
    for (size_t i = 0; i < count; i++)
        free((void *)routing[i].layers);
    free(routing);
    free(choices);
}

static void write_vectors(const struct generation *generation, struct buffer *body)
{
    const struct model *model = generation->model;
    const size_t all = model->info->outputs[0].elements, count = generation->choice_count;
    const size_t size = generation->embeddings.dimensions ? generation->embeddings.dimensions : all;
    const struct openai_usage usage = usage_of(generation);
    float *values = calloc(count, size * sizeof *values);
    for (size_t i = 0; values && i < count; i++) {
        memcpy(values + i * size, generation->choices[i].sequence.vector, size * sizeof *values);
        if (model->pooling.normalize)
            pooling_normalize(values + i * size, size);
    }
    const struct openai_vectors vectors = {values, count, size, generation->embeddings.base64};
    if (values)
        openai_write_embeddings(model->name, &vectors, usage.prompt_tokens, body);
    body->failed |= !values;
    free(values);
}

void generation_answer(struct generation *generation)
{
    struct exchange *exchange = generation->exchange;
    const uint64_t began = uv_hrtime();
    struct buffer body;
    if (generation->background.err.code != ERROR_NONE) {
        exchange_reply_error(exchange, &generation->background.err);
        return;
    }
    buffer_init(&body, generation->all->max_response_bytes);
    if (generation->kind == GENERATE_EMBEDDINGS)
        write_vectors(generation, &body);
    else
        write_answer(generation, &body);
    exchange->log_encode_ns = uv_hrtime() - began;
    exchange_reply(exchange, 200, NULL, &body);
    buffer_close(&body);
}

/* ---- events ---- */

/* Then nothing more is written, and the end cuts the connection. */
static bool buffer_has_failed(struct generation *generation)
{
    if (generation->events.failed)
        buffer_error(&generation->events, "an answer", "ask for fewer tokens",
                     &generation->background.err);
    return generation->events.failed;
}

static void begin_answer(struct generation *generation)
{
    if (generation->answering)
        return;
    generation->answering = true;
    exchange_literal_header(generation->exchange, "Cache-Control", "no-cache");
    exchange_begin(generation->exchange, 200, "text/event-stream");
}

bool generation_flush(struct generation *generation)
{
    struct buffer *events = &generation->events;
    if (buffer_has_failed(generation))
        return true;
    while (generation->events_taken < events->length) {
        size_t length = events->length - generation->events_taken;
        length = length < HTTP_STREAM_MAX_BYTES / 4 ? length : HTTP_STREAM_MAX_BYTES / 4;
        if (!exchange_write(generation->exchange, events->data + generation->events_taken, length))
            return false;
        generation->events_taken += length;
    }
    buffer_close(events);
    buffer_init(events, generation->all->max_response_bytes);
    generation->events_taken = 0;
    return true;
}

/* Sequences go on when on_writable() has told that the client took the events. */
static void send_events(struct generation *generation)
{
    begin_answer(generation);
    if (generation_flush(generation))
        return;
    if (generation->stalled_ns == 0)
        generation->stalled_ns = uv_hrtime();
    for (size_t i = 0; i < generation->choice_count; i++)
        sequences_pause(&generation->choices[i].sequence);
}

void generation_write_event(struct choice *choice)
{
    struct generation *generation = choice->generation;
    const struct openai_generation *request = generation->request;
    const struct openai_answer answer = answer_of(generation);
    const bool last = choice->finish != OPENAI_UNFINISHED;
    const bool tokens = request->logprobs || !generation->model->language;
    const bool has_text = choice->text.length > choice->text_sent;
    if (!last && !has_text && !(tokens && choice->tokens > choice->tokens_sent))
        return;
    struct openai_routing routing = {0};
    if (has_routing(choice))
        routing = routing_of(choice);
    const struct openai_choice piece = piece_of(choice, &routing);
    openai_write_chunk(&answer, &piece, !choice->begun, request->include_usage,
                       &generation->events);
    free((void *)routing.layers);
    choice->begun = true;
    choice->text_sent = choice->text.length;
    choice->tokens_sent = choice->tokens;
    choice->rows_sent = choice->sequence.rows;
    send_events(generation);
}

static void write_failure(struct generation *generation)
{
    exchange_note_error(generation->exchange, generation->background.err.text);
    openai_write_error_chunk(&generation->background.err, &generation->events);
}

void generation_write_end(struct generation *generation)
{
    const struct openai_answer answer = answer_of(generation);
    const struct openai_usage usage = usage_of(generation);
    const bool failed = generation->background.err.code != ERROR_NONE;
    if (failed && !generation->answering)
        return; /* the status says so */
    if (failed)
        write_failure(generation);
    else if (generation->request->include_usage)
        openai_write_usage_chunk(&answer, &usage, &generation->events);
    if (!failed)
        openai_write_done(&generation->events);
    send_events(generation);
}
