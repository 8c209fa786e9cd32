/* Sequences from their arrival to their end. A session is opened when a sequence begins to run, and
 * closed between steps only. */
#include "server/compute/sequences.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>

#include "core/memory.h"
#include "core/text.h"
#include "server/compute/sequences_end.h"
#include "server/compute/sequences_step.h"
#include "server/log.h"

static const struct sequences *const_sequences(const struct lane *lane)
{
    return (const struct sequences *)(const void *)lane;
}

/* ---- the beginning of a sequence ---- */

static int allocate_routing(struct sequence *sequence, const struct moed_model_info *info,
                            struct error *err)
{
    sequence->routing = xcalloc(info->gate_count, sizeof *sequence->routing);
    for (size_t i = 0; i < info->gate_count; i++) {
        struct sequence_routing *routing = &sequence->routing[i];
        const size_t numbers = sequence->limit * info->gates[i].top_k;
        routing->experts = calloc_checked(numbers, sizeof *routing->experts, err);
        routing->weights = calloc_checked(numbers, sizeof *routing->weights, err);
        if (!routing->experts || !routing->weights)
            return -1;
    }
    return 0;
}

/* What it needs beside the session, whose size the client decides, too. */
static int allocate(struct sequence *sequence, const struct moed_model_info *info,
                    struct error *err)
{
    if (sequence->scores || sequence->scores_prompt) {
        sequence->choices = calloc_checked(sequence->limit, sizeof *sequence->choices, err);
        if (!sequence->choices)
            return -1;
        sequence->choices[0] =
            (struct sampler_choice){.token = sequence->tokens[0], .logprob = NAN};
    }
    if (sequence->keeps_routing && allocate_routing(sequence, info, err) != 0)
        return -1;
    if (!sampler_needs_history(&sequence->sampling))
        return 0;
    sequence->history = sampler_history_new(sequence->limit, err);
    for (size_t i = 0; sequence->history && i < sequence->prompt; i++)
        sampler_history_prompt(sequence->history, sequence->tokens[i]);
    return sequence->history ? 0 : -1;
}

/* Whether tokens of the prompt need no row of their own if somebody has computed them. */
static bool may_begin_later(const struct sequence *sequence)
{
    return !sequence->scores_prompt && !sequence->keeps_routing && !sequence->asked &&
           !sequence->quarantined;
}

static void begin_session(struct sequences *sequences, struct sequence *sequence)
{
    sequences_leave_queue(sequences, sequence);
    TAILQ_INSERT_TAIL(&sequences->running, sequence, link);
    sequences->running_count++;
    if (sequence->turn > sequences->turn)
        sequences->turn = sequence->turn;
    sequence->state = SEQUENCE_RUNS;
    if (sequence->session)
        sequence->rows = sequence->cached = moed_session_length(sequence->session);
    if (sequence->cached > 0)
        stats_add_cached(sequences->stats, sequence->cached);
}

/* False: it must wait for another's end. */
static bool open_session(struct sequences *sequences, struct sequence *sequence)
{
    struct moed_session *session = moed_session_new(sequences->pages);
    if (may_begin_later(sequence))
        moed_session_find_prefix(session, sequence->tokens, sequence->prompt);
    if (moed_session_promise(session, sequence->limit) != 0) {
        moed_session_free(session);
        return false;
    }
    sequence->session = session;
    return true;
}

static bool may_run(struct sequences *sequences, struct sequence *sequence)
{
    if (sequences->running_count == sequences->options.max_sequences)
        return false;
    if (!sequence->asked)
        sequence->quarantined = quarantined_now(sequences->lane.model);
    if (!sequences->pages || open_session(sequences, sequence))
        return true;
    quarantined_release(sequence->quarantined);
    sequence->quarantined = NULL;
    return false;
}

/* Where nothing runs every page is free: memory is short, and nobody's end will change that. */
static void refuse(struct sequences *sequences, struct sequence *sequence)
{
    error_set(&sequence->error, ERROR_UNAVAILABLE, "no memory for a sequence of %zu token%s",
              sequence->limit, text_s(sequence->limit));
    sequences_end(sequences, sequence);
}

/* Takes sequences from the queue. One that cannot be had waits, and so do those behind it, or it
 * might wait forever. */
static void admit(struct sequences *sequences)
{
    struct sequence *sequence;
    const uint64_t now = uv_hrtime();
    while ((sequence = TAILQ_FIRST(&sequences->waiting))) {
        if (!may_run(sequences, sequence)) {
            sequences->blocked = sequences->running_count > 0;
            if (sequences->blocked)
                break;
            refuse(sequences, sequence);
            continue;
        }
        begin_session(sequences, sequence);
        pace_left(&sequences->pace, sequence->queued, now, sequences->waiting_count > 0);
        sequence->began_ns = now;
        stats_add_wait(sequences->stats, (double)(now - sequence->submitted_ns) / 1e9);
        if (allocate(sequence, sequences->lane.model->info, &sequence->error) != 0)
            sequences_end(sequences, sequence);
    }
    sequences_show(sequences);
}

/* ---- the lane ---- */

static bool empty(const struct lane *lane)
{
    const struct sequences *sequences = const_sequences(lane);
    return sequences->running_count + sequences->waiting_count == 0;
}

static bool ready(const struct lane *lane, uint64_t now_ns, uint64_t *due_ns)
{
    const struct sequences *sequences = const_sequences(lane);
    const struct sequence *sequence;
    (void)now_ns, (void)due_ns;
    if (sequences->waiting_count > 0 && !sequences->blocked)
        return true;
    TAILQ_FOREACH(sequence, &sequences->running, link)
    if (!sequence->paused)
        return true;
    return false;
}

static uint64_t cost(const struct lane *lane)
{
    const struct sequences *sequences = const_sequences(lane);
    return sequences->row_cost * step_expected_rows(sequences);
}

static void begin(struct lane *lane, uint64_t slice_ns)
{
    (void)slice_ns; /* a step is short by itself */
    struct sequences *sequences = sequences_of(lane);
    admit(sequences);
    step_compose(sequences);
}

static void run(struct lane *lane, struct moed_team *team)
{
    step_run(sequences_of(lane), team);
}

static void finish(struct lane *lane, uint64_t compute_ns)
{
    step_deliver(sequences_of(lane), compute_ns);
}

static void sequences_free(struct lane *lane)
{
    struct sequences *sequences = sequences_of(lane);
    sequences_show_as(sequences, (struct sequences_shown){0});
    step_close(&sequences->step);
    if (sequences->pages)
        moed_pages_free(sequences->pages);
    sampler_scratch_free(sequences->sampler);
    moed_scratch_free(sequences->scratch);
    model_release(lane->model);
    free(sequences);
}

static const struct lane_kind SEQUENCES = {ready, cost, begin, run, finish, empty, sequences_free};

/* ---- what the server asks of it ---- */

/* Windows of twice the sequences: what a window sees at the end of one, or of a beginning that many
 * have in common, stays until others need it, so that the next goes on there. */
struct moed_room sequences_room(const struct moed_model_info *info,
                                const struct sequences_options *options)
{
    const size_t context = (info->context + MOED_PAGE_POSITIONS - 1) / MOED_PAGE_POSITIONS;
    size_t least = 0, most = options->max_sequences * context; /* pages */
    struct moed_room room = {.sequences = 2 * options->max_sequences,
                             .step_rows = info_step_rows(info, options->step_tokens)};
    while (least < most) {
        const size_t middle = most - (most - least) / 2;
        room.positions = middle * MOED_PAGE_POSITIONS;
        if (moed_room_bytes(info, &room) <= options->cache_bytes)
            least = middle;
        else
            most = middle - 1;
    }
    room.positions = least * MOED_PAGE_POSITIONS;
    return room;
}

static void tell_memory(const struct sequences *sequences)
{
    const struct model *model = sequences->lane.model;
    log_message(
        LOG_INFO, "sequences",
        "%s version %s: keys and values of %zu positions in at most %llu MB; %zu sequences, "
        "%zu tokens a step",
        model->name, model->version, sequences->room.positions,
        (unsigned long long)(moed_room_bytes(model->info, &sequences->room) >> 20),
        sequences->options.max_sequences, sequences->step_rows);
}

struct sequences *sequences_new(struct model *model, struct scheduler *scheduler,
                                const struct sequences_options *options, struct error *err)
{
    assert(info_steps(model->info)); /* others are not loaded */
    struct error cause = ERROR_INIT;
    struct sequences *sequences = xcalloc(1, sizeof *sequences);
    const struct moed_scratch_options wanted = {.max_rows =
                                                    model_step_rows(model, options->step_tokens),
                                                .threads = options->threads,
                                                .distributions = true};
    sequences->lane.kind = &SEQUENCES;
    sequences->lane.model = model_hold(model);
    sequences->scheduler = scheduler;
    sequences->options = *options;
    sequences->stats = &model->stats->loop[options->loop];
    sequences->row_cost = model->cost_per_row;
    sequences->width = model->info->outputs[0].elements;
    sequences->step_rows = model_step_rows(model, options->step_tokens);
    sequences->context = model->info->context;
    TAILQ_INIT(&sequences->waiting);
    TAILQ_INIT(&sequences->running);
    sequences->scratch = moed_scratch_new(model->engine, &wanted, &cause);
    sequences->sampler = sampler_scratch_new(sequences->width, &cause);
    if (model_keeps_positions(model)) {
        sequences->room = sequences_room(model->info, options);
        sequences->pages = moed_pages_new(model->engine, &sequences->room, &cause);
    }
    if (cause.code == ERROR_NONE && step_init(sequences, &cause) == 0) {
        sequences_show(sequences);
        tell_memory(sequences);
        return sequences;
    }
    error_set(err, ERROR_UNAVAILABLE, "%s", cause.text);
    sequences_free(&sequences->lane);
    return NULL;
}

size_t sequences_most(const struct sequences *sequences)
{
    const size_t kept = sequences->pages ? sequences->room.positions : sequences->step_rows;
    return kept < sequences->context ? kept : sequences->context;
}

int sequences_check(const struct sequences *sequences, size_t prompt, size_t limit,
                    struct error *err)
{
    if (limit > sequences->context)
        return error_set(err, ERROR_CONTEXT,
                         "%zu token%s of prompt and at most %zu more exceed the model's context of "
                         "%zu tokens",
                         prompt, prompt == 1 ? "" : "s", limit - prompt, sequences->context);
    if (limit > sequences_most(sequences) && !sequences->pages)
        return error_set(err, ERROR_CONTEXT,
                         "%zu tokens exceed the %zu that are computed at once; an encoder's text "
                         "cannot be cut",
                         prompt, sequences_most(sequences));
    if (limit > sequences_most(sequences))
        return error_set(err, ERROR_CONTEXT,
                         "%zu token%s of prompt and at most %zu more exceed the %zu positions that "
                         "the server keeps for all sequences (kv_cache_mb)",
                         prompt, prompt == 1 ? "" : "s", limit - prompt, sequences_most(sequences));
    return 0;
}

/* Many prompts in one request are convenient, not a way to more than one's share. */
enum { MOST_QUEUES_IN_A_REQUEST = 64 };

/* Sequences of a higher priority that may go before one that waits already: it runs in the end. */
enum { MOST_PASSED = 16 };

size_t sequences_queued(const struct sequences *sequences, size_t prompts, size_t tokens)
{
    const size_t half = sequences->options.max_queue_tokens / 2;
    return prompts > 1 && tokens > half ? half : tokens;
}

int sequences_check_room(const struct sequences *sequences, size_t prompts, size_t tokens,
                         struct error *err)
{
    const size_t most = sequences->options.max_queue_tokens;
    const size_t queued = sequences_queued(sequences, prompts, tokens);
    if (prompts > 1 && tokens / MOST_QUEUES_IN_A_REQUEST > most)
        return error_set(err, ERROR_TOO_LARGE,
                         "the %zu prompts have %zu tokens, more than %d times the %zu that may "
                         "wait: send fewer in one request",
                         prompts, tokens, MOST_QUEUES_IN_A_REQUEST, most);
    if (sequences->waiting_count == 0 || queued + sequences->queued <= most)
        return 0;
    return error_set(err, ERROR_OVERLOADED,
                     "the queue is full: %zu token%s in it, %zu more would exceed the limit of %zu",
                     sequences->queued, text_s(sequences->queued), queued, most);
}

unsigned sequences_retry_after(const struct sequences *sequences)
{
    return pace_retry_after(&sequences->pace, sequences->queued);
}

/* Requests take turns: the n-th prompt of one waits for the first n of those that came before, and
 * for none of what comes after those (start-time fair queueing, Goyal, Vin and Cheng 1996). */
static bool goes_before(const struct sequence *sequence, const struct sequence *waiting)
{
    return sequence->priority == waiting->priority
               ? sequence->turn < waiting->turn
               : sequence->priority < waiting->priority && waiting->passed < MOST_PASSED;
}

static void queue(struct sequences *sequences, struct sequence *sequence)
{
    struct sequence *before = TAILQ_LAST(&sequences->waiting, sequence_list);
    sequence->turn = sequences->turn + sequence->place;
    while (before && goes_before(sequence, before)) {
        before->passed += sequence->priority < before->priority;
        before = TAILQ_PREV(before, sequence_list, link);
    }
    if (before)
        TAILQ_INSERT_AFTER(&sequences->waiting, before, sequence, link);
    else
        TAILQ_INSERT_HEAD(&sequences->waiting, sequence, link);
}

void sequences_submit(struct sequences *sequences, struct sequence *sequence)
{
    sequence->submitted_ns = uv_hrtime();
    sequence->count = sequence->prompt;
    sequence->state = SEQUENCE_WAITS;
    queue(sequences, sequence);
    sequences->waiting_count++;
    sequences->waiting_tokens += sequence->prompt;
    sequences->queued += sequence->queued;
    sequences_show(sequences);
    scheduler_wake(sequences->scheduler, &sequences->lane);
}

void sequences_cancel(struct sequences *sequences, struct sequence *sequence)
{
    error_set(&sequence->error, ERROR_DISCONNECTED, "cancelled");
    if (!sequence->in_step)
        sequences_end(sequences, sequence);
}

void sequences_pause(struct sequence *sequence)
{
    sequence->paused = true;
}

void sequences_resume(struct sequences *sequences, struct sequence *sequence)
{
    if (sequence->paused)
        scheduler_wake(sequences->scheduler, &sequences->lane);
    sequence->paused = false;
}
