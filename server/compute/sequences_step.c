/* What a step has, computes and brings. */
#include "server/compute/sequences_step.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "server/compute/finite.h"
#include "server/compute/sequences_end.h"

enum {
    /* Beside running sequences a step takes at most so many rows of prompts: what a token of theirs
     * is late by. */
    PROMPT_ROWS = 64,
    /* So many positions of a prompt can be scored in one step: a position's logits are a whole
     * vocabulary. */
    SCORED_ROWS = 32,
};

size_t sequences_most_wanted(const struct moed_model_info *info, size_t max_sequences,
                             size_t step_rows)
{
    const bool keeps_positions = info->position_bytes > 0;
    return keeps_positions ? max_sequences + SCORED_ROWS : step_rows;
}

static size_t most_wanted(const struct sequences *sequences)
{
    return sequences_most_wanted(sequences->lane.model->info, sequences->options.max_sequences,
                                 sequences->step_rows);
}

int step_init(struct sequences *sequences, struct error *err)
{
    struct step *step = &sequences->step;
    const size_t rows = sequences->step_rows, most = most_wanted(sequences);
    const size_t spans = sequences->options.max_sequences;
    step->tokens = xcalloc(rows, sizeof *step->tokens);
    step->wants = xcalloc(rows, sizeof *step->wants);
    step->span = xcalloc(spans, sizeof *step->span);
    step->sequences = xcalloc(spans, sizeof(struct sequence *));
    step->counted = xcalloc(spans, sizeof *step->counted);
    step->errors = xcalloc(spans, sizeof *step->errors);
    step->choices = xcalloc(most, sizeof *step->choices);
    step->logits = calloc_checked(most, sequences->width * sizeof *step->logits, err);
    return step->logits ? 0 : -1;
}

void step_close(struct step *step)
{
    free(step->tokens);
    free(step->wants);
    free(step->span);
    free(step->sequences);
    free(step->counted);
    free(step->errors);
    free(step->choices);
    free(step->logits);
}

/* ---- composing ---- */

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

size_t step_expected_rows(const struct sequences *sequences)
{
    const struct sequence *sequence;
    size_t rows = sequences->blocked ? 0 : sequences->waiting_tokens;
    TAILQ_FOREACH(sequence, &sequences->running, link)
    rows += sequence->paused ? 0 : sequence_todo(sequence);
    return least(rows, sequences->step_rows);
}

/* Whether the row at `position` is asked what follows it. */
static bool is_wanted(const struct sequence *sequence, size_t position)
{
    if (sequence->vector)
        return true;
    return position + 1 == sequence->count
               ? sequence->count < sequence->limit
               : sequence->scores_prompt && position + 1 < sequence->prompt;
}

static const struct moed_intervention *intervention_of(const struct sequence *sequence)
{
    return sequence->quarantined ? sequence->quarantined->rows : sequence->asked;
}

/* What it was promised when it began. */
static void reserve(struct sequence *sequence, size_t positions)
{
    const bool has = !sequence->session || moed_session_reserve(sequence->session, positions) == 0;
    assert(has);
}

static void add_span(struct sequences *sequences, struct sequence *sequence, size_t rows)
{
    struct step *step = &sequences->step;
    const size_t room = most_wanted(sequences) - step->wanted;
    size_t wanted = 0, taken = 0;
    while (taken < rows) {
        const bool wants = is_wanted(sequence, sequence->rows + taken);
        if (wants && wanted == room)
            break;
        wanted += wants;
        step->wants[step->rows + taken++] = wants;
    }
    if (taken == 0)
        return;
    reserve(sequence, sequence->rows + taken);
    memcpy(step->tokens + step->rows, sequence->tokens + sequence->rows,
           taken * sizeof *step->tokens);
    step->span[step->spans] = (struct moed_span){.rows = taken,
                                                 .position = sequence->rows,
                                                 .session = sequence->session,
                                                 .intervention = intervention_of(sequence)};
    step->sequences[step->spans++] = sequence;
    step->rows += taken;
    step->wanted += wanted;
    sequence->in_step = true;
}

static bool waits_for_prompt(const struct sequence *sequence)
{
    return !sequence->paused && !sequence->in_step && sequence_todo(sequence) > 1;
}

/* The prompt with the fewest rows left gets half of the room, so that a short one does not wait for
 * a long one; the rest goes to the oldest, so that every one comes to its end. */
static void add_prompts(struct sequences *sequences, size_t room)
{
    struct sequence *sequence, *shortest = NULL;
    TAILQ_FOREACH(sequence, &sequences->running, link)
    if (waits_for_prompt(sequence) &&
        (!shortest || sequence_todo(sequence) < sequence_todo(shortest)))
        shortest = sequence;
    const size_t end = sequences->step.rows + room;
    TAILQ_FOREACH(sequence, &sequences->running, link)
    if (waits_for_prompt(sequence) && sequence != shortest)
        break;
    if (sequence) /* another one */
        add_span(sequences, shortest, least(sequence_todo(shortest), (room + 1) / 2));
    TAILQ_FOREACH(sequence, &sequences->running, link)
    if (waits_for_prompt(sequence) && sequences->step.rows < end)
        add_span(sequences, sequence, least(sequence_todo(sequence), end - sequences->step.rows));
}

/* Texts of an encoder, whose rows see each other: each at once. */
static void add_texts(struct sequences *sequences)
{
    struct sequence *sequence;
    TAILQ_FOREACH(sequence, &sequences->running, link)
    if (sequence_todo(sequence) <= sequences->step_rows - sequences->step.rows)
        add_span(sequences, sequence, sequence_todo(sequence));
}

void step_compose(struct sequences *sequences)
{
    struct step *step = &sequences->step;
    struct sequence *sequence;
    step->rows = step->spans = step->wanted = 0;
    if (!sequences->pages) {
        add_texts(sequences);
        return;
    }
    TAILQ_FOREACH(sequence, &sequences->running, link)
    if (!sequence->paused && sequence_todo(sequence) == 1)
        add_span(sequences, sequence, 1);
    const size_t left = sequences->step_rows - step->rows;
    add_prompts(sequences, step->rows > 0 ? least(left, PROMPT_ROWS) : left);
}

/* ---- computing ---- */

static void choose(struct sequences *sequences, const struct sequence *sequence, size_t position,
                   size_t index, struct error *err)
{
    struct step *step = &sequences->step;
    const float *logits = step->logits + index * sequences->width;
    const struct sampler_step sampling = {.options = &sequence->sampling,
                                          .history = sequence->history,
                                          .logits = logits,
                                          .position = position + 1,
                                          .logprobs = sequence->scores,
                                          .top = sequence->scores ? sequence->top : 0};
    int failed;
    if (position + 1 == sequence->count)
        failed = sampler_choose(&sampling, sequences->sampler, &step->choices[index], err);
    else
        failed = sampler_score(logits, sequence->tokens[position + 1], sequence->top,
                               sequences->sampler, &step->choices[index], err);
    step->nonfinite += failed != 0; /* delivery looks at `err` */
}

static void choose_tokens(struct sequences *sequences)
{
    struct step *step = &sequences->step;
    size_t row = 0, index = 0;
    for (size_t i = 0; i < step->spans; i++)
        for (size_t at = 0; at < step->span[i].rows; at++, row++)
            if (step->wants[row])
                choose(sequences, step->sequences[i], step->span[i].position + at, index++,
                       &step->errors[i]);
}

static void pool_texts(struct sequences *sequences)
{
    struct step *step = &sequences->step;
    const float *rows = step->logits;
    for (size_t i = 0; i < step->spans; i++) {
        pooling_run(&sequences->lane.model->pooling, rows, step->span[i].rows, sequences->width,
                    step->sequences[i]->vector);
        step->nonfinite += !all_finite(step->sequences[i]->vector, sequences->width);
        rows += step->span[i].rows * sequences->width;
    }
}

void step_run(struct sequences *sequences, struct moed_team *team)
{
    struct step *step = &sequences->step;
    if (step->rows == 0)
        return;
    const void *inputs[] = {step->tokens};
    float *outputs[] = {step->logits};
    const struct moed_batch batch = {.spans = step->span,
                                     .span_count = step->spans,
                                     .inputs = inputs,
                                     .outputs = outputs,
                                     .wanted = step->wants};
    moed_forward(sequences->lane.model->engine, sequences->scratch, team, &batch);
    for (size_t i = 0; i < step->spans; i++)
        step->errors[i] = (struct error)ERROR_INIT;
    step->nonfinite = 0;
    if (sequences->pages)
        choose_tokens(sequences);
    else
        pool_texts(sequences);
}

/* ---- counting ---- */

/* Rows of a prompt among those of a span. */
static size_t prompt_rows(const struct sequence *sequence, const struct moed_span *span)
{
    return span->position >= sequence->prompt
               ? 0
               : least(span->rows, sequence->prompt - span->position);
}

static void count_step(struct sequences *sequences, uint64_t compute_ns)
{
    const struct step *step = &sequences->step;
    const size_t gates = sequences->lane.model->info->gate_count;
    const struct moed_routing *routing[gates + 1]; /* no array of 0 */
    for (size_t i = 0; i < gates; i++)
        routing[i] = moed_routing(sequences->scratch, i);
    const struct tally_batch decided = {
        .rows = step->rows, .routing = routing, .at = stats_time(sequences->lane.ended_ns)};
    size_t counted = 0, prompts = 0;
    for (size_t i = 0, row = 0; i < step->spans; row += step->span[i++].rows) {
        const struct sequence *sequence = step->sequences[i];
        const size_t prompt = prompt_rows(sequence, &step->span[i]);
        prompts += prompt;
        if (sequence->counted)
            step->counted[counted++] = (struct step_span){.first = row,
                                                          .generated = row + prompt,
                                                          .end = row + step->span[i].rows,
                                                          .tag = sequence->tag,
                                                          .intervened = sequence->asked};
    }
    const struct step_counts counts = {.seconds = (double)compute_ns / 1e9,
                                       .prompt_rows = prompts,
                                       .nonfinite = step->nonfinite,
                                       .spans = step->counted,
                                       .span_count = counted};
    stats_add_step(sequences->stats, &decided, &counts);
}

/* What a row costs as measured, which has attention and choosing in it. */
static void measure(struct sequences *sequences, uint64_t compute_ns)
{
    enum { MACS_PER_NS = 25 };
    const uint64_t row = compute_ns * MACS_PER_NS / sequences->step.rows;
    const uint64_t mean = (3 * sequences->row_cost + row) / 4;
    const uint64_t cost = sequences->lane.model->cost_per_row;
    sequences->row_cost = mean > cost ? mean : cost;
}

/* ---- delivering ---- */

static void keep_routing(const struct sequences *sequences, struct sequence *sequence, size_t row,
                         size_t rows)
{
    const struct moed_model_info *info = sequences->lane.model->info;
    for (size_t i = 0; sequence->routing && i < info->gate_count; i++) {
        const struct moed_routing *routing = moed_routing(sequences->scratch, i);
        const size_t top_k = routing->top_k;
        memcpy(sequence->routing[i].experts + sequence->rows * top_k, routing->expert + row * top_k,
               rows * top_k * sizeof(int32_t));
        memcpy(sequence->routing[i].weights + sequence->rows * top_k, routing->weight + row * top_k,
               rows * top_k * sizeof(float));
    }
}

/* Returns whether the sequence goes on. */
static bool add_token(const struct sequences *sequences, struct sequence *sequence, int32_t token)
{
    const uint64_t now = uv_hrtime();
    const bool first = sequence->count == sequence->prompt;
    stats_add_token(sequences->stats, first,
                    (double)(now - (first ? sequence->submitted_ns : sequence->last_ns)) / 1e9);
    sequence->first_ns = first ? now : sequence->first_ns;
    sequence->last_ns = now;
    sequence->tokens[sequence->count++] = token;
    if (sequence->history)
        sampler_history_answer(sequence->history, token);
    return sequence->calls->on_token(sequence) && sequence->count < sequence->limit;
}

/* The choices from `index` on are those of a span's wanted rows. Returns how many there were. */
static size_t deliver(struct sequences *sequences, size_t at, size_t row, size_t index)
{
    struct step *step = &sequences->step;
    struct sequence *sequence = step->sequences[at];
    const struct moed_span *span = &step->span[at];
    const size_t count = sequence->count;
    size_t taken = 0;
    bool goes_on = true;
    if (step->errors[at].code != ERROR_NONE)
        error_set(&sequence->error, step->errors[at].code, "%s", step->errors[at].text);
    keep_routing(sequences, sequence, row, span->rows);
    sequence->rows += span->rows;
    if (sequence->session)
        moed_session_share(sequence->session);
    for (size_t i = 0; i < span->rows; i++) {
        const size_t next = span->position + i + 1;
        if (!step->wants[row + i] || sequence->vector)
            continue;
        const struct sampler_choice *choice = &step->choices[index + taken++];
        if (sequence->choices)
            sequence->choices[next] = *choice;
        if (next == count && sequence->error.code == ERROR_NONE)
            goes_on = add_token(sequences, sequence, choice->token);
    }
    goes_on &= sequence->rows < sequence->limit; /* nothing was to be generated */
    sequence->in_step = false;
    if (!goes_on || sequence->error.code != ERROR_NONE)
        sequences_end(sequences, sequence);
    return taken;
}

/* What was computed from weights that were not there is neither counted nor given to anybody. */
static void fail_all(struct sequences *sequences)
{
    const struct model *model = sequences->lane.model;
    for (size_t i = 0; i < sequences->step.spans; i++)
        error_set(&sequences->step.errors[i], ERROR_UNAVAILABLE,
                  "the weights of model '%s' were truncated while they were served", model->name);
}

static void tell_damage(struct sequences *sequences)
{
    if (!atomic_exchange(&sequences->lane.model->damage_told, true) &&
        sequences->options.on_damaged)
        sequences->options.on_damaged(sequences->options.context);
}

/* A sequence that ends may be gone; `step` is not used by another step before this returns. */
void step_deliver(struct sequences *sequences, uint64_t compute_ns)
{
    const struct step *step = &sequences->step;
    if (step->rows == 0)
        return;
    if (moed_model_is_damaged(sequences->lane.model->engine)) {
        fail_all(sequences);
        tell_damage(sequences);
    } else {
        count_step(sequences, compute_ns);
    }
    measure(sequences, compute_ns);
    for (size_t i = 0, row = 0, index = 0; i < step->spans; row += step->span[i++].rows) {
        step->sequences[i]->compute_ns += compute_ns;
        index += deliver(sequences, i, row, index);
    }
}
