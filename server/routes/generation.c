/* The life of a generation: read, submitted, told token by token, ended. */
#include "server/routes/generation.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/intervention.h"
#include "core/memory.h"
#include "server/routes/openai.h"
#include "server/routes/what_if.h"

enum {
    /* Deadlines are kept this exactly. */
    DEADLINE_TICK_MS = 10,
    /* A body of fewer bytes becomes tokens in a millisecond or so. */
    LONG_BODY_BYTES = 4 << 10,
};

/* A client that takes nothing of its stream for so long gives way if others wait for its place.
 * What it has not taken by then are some hundred events. */
static const uint64_t STALLED_NS = 5000000000;

static void choice_close(struct choice *choice, const struct model *model)
{
    if (choice->has_stream)
        text_stream_close(&choice->stream);
    buffer_close(&choice->text);
    free(choice->sequence.vector);
    free(choice->offsets);
    sequence_close(&choice->sequence, model->info);
}

static void close_request(struct generation *generation)
{
    if (generation->kind == GENERATE_CHAT)
        openai_chat_close(&generation->conversation);
    else if (generation->kind == GENERATE_EMBEDDINGS)
        openai_embeddings_close(&generation->embeddings);
    else
        openai_completion_close(&generation->completion);
}

static void generation_free(struct generation *generation)
{
    for (size_t i = 0; i < generation->choice_count; i++)
        choice_close(&generation->choices[i], generation->model);
    free(generation->choices);
    if (generation->request)
        close_request(generation);
    buffer_close(&generation->events);
    infer_overrides_close(&generation->overrides);
    moed_intervention_free(generation->asked);
    catalog_release(generation->catalog);
    model_release(generation->model);
    free(generation);
}

static void reject(const struct generation *generation, enum reject_reason reason)
{
    if (generation->model)
        stats_add_rejection(&generation->model->stats->loop[generation->all->lanes->options.loop],
                            reason);
}

/* ---- the end ---- */

static void note_times(struct generation *generation)
{
    struct exchange *exchange = generation->exchange;
    const uint64_t now = uv_hrtime();
    exchange->log_rows = 0;
    for (size_t i = 0; i < generation->choice_count; i++) {
        const struct sequence *sequence = &generation->choices[i].sequence;
        exchange->log_rows += sequence->count;
        exchange->log_compute_ns += sequence->compute_ns;
        if (i == 0 && sequence->submitted_ns > 0)
            exchange->log_queue_ns =
                (sequence->began_ns ? sequence->began_ns : now) - sequence->submitted_ns;
    }
}

static void disown(struct generation *generation)
{
    if (generation->listed)
        TAILQ_REMOVE(&generation->all->list, generation, link);
    generation->listed = false;
    generation->exchange->on_disconnect = NULL;
    generation->exchange->on_writable = NULL;
    generation->exchange->owner = NULL;
}

/* Every generation ends here. */
static void generation_end(struct generation *generation)
{
    disown(generation);
    note_times(generation);
    if (generation->answering && generation->events.failed)
        exchange_abort(generation->exchange, &generation->background.err);
    else if (generation->answering)
        exchange_end(generation->exchange);
    else
        generation_answer(generation);
    generation_free(generation);
}

/* Ends it if nothing is left to be computed or written. */
static void end_if_done(struct generation *generation)
{
    if (generation->unfinished > 0 || generation->gone)
        return; /* the farewell ends one whose client is gone */
    if (!generation->answering || generation_flush(generation))
        generation_end(generation);
}

/* One thing less to wait for; the generation may be gone on return. */
static void leave(struct generation *generation)
{
    generation->unfinished--;
    if (generation->unfinished == 0 && generation->request->stream && !generation->gone)
        generation_write_end(generation);
    end_if_done(generation);
}

/* Gives up on all choices; the caller waits for something, so that it does not end meanwhile. */
static void cancel_choices(struct generation *generation)
{
    for (size_t i = 0; i < generation->choice_count; i++) {
        struct sequence *sequence = &generation->choices[i].sequence;
        if (sequence->state == SEQUENCE_WAITS || sequence->state == SEQUENCE_RUNS)
            sequences_cancel(generation->lane, sequence);
    }
}

static void give_up(struct generation *generation)
{
    generation->unfinished++;
    cancel_choices(generation);
    leave(generation);
}

/* ---- the lane's calls ---- */

static bool on_token(struct sequence *sequence)
{
    struct choice *choice = choice_of(sequence);
    struct generation *generation = choice->generation;
    if (generation->gone || generation->background.err.code != ERROR_NONE)
        return false;
    const bool goes_on = generation_add_token(choice);
    if (goes_on && generation->request->stream && sequence->count < sequence->limit)
        generation_write_event(choice);
    return goes_on;
}

/* A choice that fails fails its request. */
static void on_end(struct sequence *sequence)
{
    struct choice *choice = choice_of(sequence);
    struct generation *generation = choice->generation;
    const bool failed = sequence->error.code != ERROR_NONE;
    if (failed && generation->background.err.code == ERROR_NONE) {
        generation->background.err = sequence->error;
        cancel_choices(generation);
    } else if (!failed && generation->background.err.code == ERROR_NONE) {
        generation_end_text(choice);
    }
    leave(generation);
}

static const struct sequence_calls CALLS = {on_token, on_end};

/* ---- the client's calls ---- */

static void on_farewell(uv_timer_t *timer)
{
    struct generations *all = timer->data;
    for (struct generation *generation = TAILQ_FIRST(&all->list), *next; generation;
         generation = next) {
        next = TAILQ_NEXT(generation, link);
        if (!generation->gone)
            continue;
        give_up(generation);
        if (generation->unfinished == 0)
            generation_end(generation);
        else /* the step that is being computed has rows of it */
            uv_timer_start(timer, on_farewell, 1, 0);
    }
}

static void on_disconnect(struct exchange *exchange)
{
    struct generation *generation = exchange->owner;
    reject(generation, REJECT_DISCONNECTED);
    generation->gone = true;
    error_set(&generation->background.err, ERROR_DISCONNECTED, "the client went away");
    uv_timer_start(&generation->all->farewell, on_farewell, 0, 0);
}

static void on_writable(struct exchange *exchange)
{
    struct generation *generation = exchange->owner;
    const bool taken = generation_flush(generation);
    generation->stalled_ns = taken ? 0 : uv_hrtime();
    if (!taken)
        return;
    for (size_t i = 0; i < generation->choice_count; i++) /* also those that wait to begin */
        sequences_resume(generation->lane, &generation->choices[i].sequence);
    end_if_done(generation);
}

/* Only one of which nothing has begun: the prompts of a request may wait for each other. */
static bool is_late(const struct generation *generation, uint64_t now)
{
    for (size_t i = 0; i < generation->choice_count; i++)
        if (generation->choices[i].sequence.began_ns > 0)
            return false;
    return generation->deadline_ns <= now;
}

static bool others_wait(const struct generation *generation)
{
    struct sequence *sequence;
    TAILQ_FOREACH(sequence, &generation->lane->waiting, link)
    if (choice_of(sequence)->generation != generation)
        return generation->lane->blocked;
    return false;
}

static bool keeps_a_place(const struct generation *generation, uint64_t now)
{
    return generation->stalled_ns > 0 && now >= generation->stalled_ns + STALLED_NS &&
           generation->unfinished > 0 && others_wait(generation);
}

static void refuse_late(struct generation *generation)
{
    reject(generation, REJECT_DEADLINE);
    error_set(&generation->background.err, ERROR_DEADLINE,
              "the request did not begin within %.0f ms of its arrival",
              (double)(generation->deadline_ns - generation->exchange->received_ns) / 1e6);
    give_up(generation);
}

/* Its pages are free at once; a client that reads on finds the reason at the end. */
static void give_way(struct generation *generation)
{
    reject(generation, REJECT_DISCONNECTED);
    error_set(&generation->background.err, ERROR_TIMEOUT,
              "nothing of this stream was read for %d s, and other requests waited for its place",
              (int)(STALLED_NS / 1000000000));
    give_up(generation);
}

/* Both end the generation. One that gives way is enough for a tick: the lane is blocked no more
 * until it has looked at who waits. */
static void on_deadlines(uv_timer_t *timer)
{
    struct generations *all = timer->data;
    const uint64_t now = uv_hrtime();
    for (struct generation *generation = TAILQ_FIRST(&all->list), *next; generation;
         generation = next) {
        next = TAILQ_NEXT(generation, link);
        if (generation->gone || generation->background.err.code != ERROR_NONE)
            continue;
        if (is_late(generation, now))
            refuse_late(generation);
        else if (keeps_a_place(generation, now))
            give_way(generation);
    }
    if (TAILQ_EMPTY(&all->list))
        uv_timer_stop(timer);
}

/* ---- the beginning ---- */

static enum job_priority priority_of(const struct openai_generation *request)
{
    return request->priority < 0   ? PRIORITY_HIGH
           : request->priority > 0 ? PRIORITY_LOW
                                   : PRIORITY_NORMAL;
}

static int submit_choices(struct generation *generation, struct error *err)
{
    const size_t count = generation->choice_count;
    size_t tokens = 0;
    for (size_t i = 0; i < count; i++)
        tokens += generation->choices[i].sequence.prompt;
    if (sequences_check_room(generation->lane, count, tokens, err) != 0)
        return -1;
    size_t queued = sequences_queued(generation->lane, count, tokens);
    const size_t tag = attribution_tag(&generation->attribution, generation->model);
    for (size_t i = 0; i < generation->choice_count; i++) {
        struct sequence *sequence = &generation->choices[i].sequence;
        sequence->calls = &CALLS;
        sequence->tag = tag;
        sequence->counted = generation->attribution.counted;
        sequence->asked = generation->asked;
        sequence->place = i;
        sequence->priority = priority_of(generation->request);
        sequence->queued = sequence->prompt < queued ? sequence->prompt : queued;
        queued -= sequence->queued;
        generation->unfinished++;
        sequences_submit(generation->lane, sequence);
    }
    return 0;
}

/* With what is in quarantine now: what a request asks for must be possible beside it. */
static int ask_what_if(struct generation *generation, struct error *err)
{
    if (generation->overrides.count == 0)
        return 0;
    struct quarantined *quarantined = quarantined_now(generation->model);
    generation->asked =
        what_if_asked(&generation->overrides, "'experts'", generation->model, quarantined, err);
    quarantined_release(quarantined);
    return err->code == ERROR_NONE ? 0 : -1;
}

static void set_deadline(struct generation *generation)
{
    const struct generations *all = generation->all;
    const uint64_t own_ms = generation->model->limits.queue_timeout_ms;
    const uint64_t timeout_ns = own_ms == SERVING_UNSET ? all->queue_timeout_ns : own_ms * 1000000;
    generation->deadline_ns = generation->exchange->received_ns + timeout_ns;
}

static void own(struct generation *generation)
{
    struct generations *all = generation->all;
    generation->exchange->owner = generation;
    generation->exchange->on_disconnect = on_disconnect;
    generation->exchange->on_writable = on_writable;
    TAILQ_INSERT_TAIL(&all->list, generation, link);
    generation->listed = true;
    if (!uv_is_active((uv_handle_t *)&all->deadlines))
        uv_timer_start(&all->deadlines, on_deadlines, DEADLINE_TICK_MS, DEADLINE_TICK_MS);
}

static int start(struct generation *generation, struct error *err)
{
    generation->lane = lanes_sequences(generation->all->lanes, generation->model, err);
    if (!generation->lane)
        return -1;
    for (size_t i = 0; i < generation->choice_count; i++)
        if (generation_set_limit(&generation->choices[i], err) != 0)
            return -1;
    if (ask_what_if(generation, err) != 0)
        return -1;
    set_deadline(generation);
    own(generation);
    return submit_choices(generation, err);
}

static enum reject_reason reason_of(enum error_code code)
{
    return code == ERROR_OVERLOADED     ? REJECT_QUEUE_FULL
           : code == ERROR_DISCONNECTED ? REJECT_DISCONNECTED
                                        : REJECT_INVALID;
}

static void read_request(struct background *background)
{
    struct generation *generation = (struct generation *)background;
    if (generation_prepare(generation, &background->err) != 0) /* the end looks at `err` */
        error_set(&background->err, ERROR_UNAVAILABLE, "no memory for the request");
}

static void on_read(struct background *background)
{
    struct generation *generation = (struct generation *)background;
    struct exchange *exchange = generation->exchange;
    exchange->log_decode_ns = uv_hrtime() - exchange->log_decode_ns;
    if (generation->model)
        exchange->model = model_hold(generation->model);
    if (background->err.code == ERROR_NONE && start(generation, &background->err) == 0)
        return;
    reject(generation, reason_of(background->err.code));
    if (background->err.code == ERROR_OVERLOADED && generation->lane)
        exchange->retry_after_s = sequences_retry_after(generation->lane);
    generation_end(generation);
}

void generation_request(struct generations *all, struct exchange *exchange,
                        enum generation_kind kind)
{
    static const char *const PREFIXES[] = {"cmpl", "chatcmpl", "embd"};
    struct generation *generation = xcalloc(1, sizeof *generation);
    generation->background = (struct background){exchange, .work = read_request, .end = on_read};
    generation->all = all;
    generation->exchange = exchange;
    generation->kind = kind;
    generation->catalog = catalog_hold(all->lanes->catalog);
    generation->created = (int64_t)time(NULL);
    buffer_init(&generation->events, all->max_response_bytes);
    snprintf(generation->id, sizeof generation->id, "%s-%.20s", PREFIXES[kind],
             exchange->request_id);
    exchange->log_decode_ns = uv_hrtime();
    if (exchange->body_length < LONG_BODY_BYTES) {
        read_request(&generation->background);
        on_read(&generation->background);
    } else {
        background_run(all->loop, &generation->background);
    }
}

void generations_init(struct generations *all, uv_loop_t *loop, struct lanes *lanes,
                      uint64_t queue_timeout_ms, size_t max_response_bytes)
{
    *all = (struct generations){.loop = loop,
                                .lanes = lanes,
                                .queue_timeout_ns = queue_timeout_ms * 1000000,
                                .max_response_bytes = max_response_bytes};
    TAILQ_INIT(&all->list);
    uv_timer_init(loop, &all->deadlines);
    uv_timer_init(loop, &all->farewell);
    all->deadlines.data = all->farewell.data = all;
    uv_unref((uv_handle_t *)&all->deadlines);
    uv_unref((uv_handle_t *)&all->farewell);
}

void generations_close(struct generations *all)
{
    uv_close((uv_handle_t *)&all->deadlines, NULL);
    uv_close((uv_handle_t *)&all->farewell, NULL);
}
