/* Counts of one loop for one served model, under one mutex. */
#include "server/statistics/stats.h"

#include <stdlib.h>
#include <string.h>

#include "core/memory.h"

/* 50 us to 10 s: a small model answers in the first buckets, a queue timeout falls in the last. */
static const double SECONDS[] = {5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2,
                                 5e-2, 0.1,  0.25,   0.5,  1,    2.5,    5,    10};
static const double ROWS[] = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024};

#define LENGTH(array) (sizeof(array) / sizeof *(array))

const char *reject_word(enum reject_reason reason)
{
    static const char *const words[] = {
#define REJECT_WORD(name, word) [REJECT_##name] = word,
        REJECT_REASONS(REJECT_WORD)
#undef REJECT_WORD
    };
    return words[reason];
}

void request_counts_add(struct request_counts *counts, const char *protocol, int status,
                        uint64_t count)
{
    for (size_t i = 0; i < counts->count; i++) {
        struct request_count *item = &counts->items[i];
        if (item->status == status && strcmp(item->protocol, protocol) == 0) {
            item->count += count;
            return;
        }
    }
    counts->items = xrealloc(counts->items, (counts->count + 1) * sizeof *counts->items);
    counts->items[counts->count++] = (struct request_count){protocol, status, count};
}

void request_counts_merge(struct request_counts *total, const struct request_counts *counts)
{
    for (size_t i = 0; i < counts->count; i++)
        request_counts_add(total, counts->items[i].protocol, counts->items[i].status,
                           counts->items[i].count);
}

void request_counts_close(struct request_counts *counts)
{
    free(counts->items);
}

/* What inference requests are answered with: series that exist from the start, so that the first
 * error is an increase. */
static void seed_requests(struct request_counts *counts)
{
    static const char *const PROTOCOLS[] = {"oip", "v1", "openai"};
    static const int STATUSES[] = {200, 400, 413, 429, 499, 503, 504};
    for (size_t i = 0; i < LENGTH(PROTOCOLS); i++)
        for (size_t j = 0; j < LENGTH(STATUSES); j++)
            request_counts_add(counts, PROTOCOLS[i], STATUSES[j], 0);
}

void stats_init(struct stats *stats, const struct moed_model_info *info, size_t tag_count)
{
    *stats = (struct stats){.tag_count = tag_count};
    stats->routing = xcalloc(tag_count, sizeof *stats->routing);
    stats->routing[TAG_NONE] = tally_new(info);
    if (uv_mutex_init(&stats->mutex) != 0)
        out_of_memory();
    seed_requests(&stats->requests);
    histogram_init(&stats->request_seconds, SECONDS, LENGTH(SECONDS));
    histogram_init(&stats->queue_seconds, SECONDS, LENGTH(SECONDS));
    histogram_init(&stats->compute_seconds, SECONDS, LENGTH(SECONDS));
    histogram_init(&stats->batch_rows, ROWS, LENGTH(ROWS));
    sequence_stats_init(&stats->sequences, info);
}

void stats_need_details(struct stats *stats, const struct moed_model_info *info, size_t classes)
{
    stats->details = xcalloc(info->gate_count, sizeof *stats->details);
    for (size_t i = 0; i < info->gate_count; i++)
        routing_detail_init(&stats->details[i], info->gates[i].experts, info->gates[i].top_k,
                            classes, info->gate_count);
    for (int phase = 0; info->sequence && phase < PHASE_COUNT; phase++) {
        stats->phases[phase] = xcalloc(info->gate_count, sizeof **stats->phases);
        for (size_t i = 0; i < info->gate_count; i++)
            routing_detail_init_steps(&stats->phases[phase][i], info->gates[i].experts,
                                      info->gates[i].top_k);
    }
    pending_init(&stats->pending, info);
}

static void free_details(const struct stats *stats, struct routing_detail *details)
{
    for (size_t i = 0; details && i < stats->routing[TAG_NONE]->gate_count; i++)
        routing_detail_close(&details[i]);
    free(details);
}

void stats_close(struct stats *stats)
{
    pending_close(&stats->pending);
    free_details(stats, stats->details);
    for (int phase = 0; phase < PHASE_COUNT; phase++)
        free_details(stats, stats->phases[phase]);
    for (size_t tag = 0; tag < stats->tag_count; tag++)
        tally_free(stats->routing[tag]);
    free(stats->routing);
    histogram_close(&stats->request_seconds);
    histogram_close(&stats->queue_seconds);
    histogram_close(&stats->compute_seconds);
    histogram_close(&stats->batch_rows);
    sequence_stats_close(&stats->sequences);
    request_counts_close(&stats->requests);
    uv_mutex_destroy(&stats->mutex);
}

void stats_add_request(struct stats *stats, const char *protocol, int status, double seconds)
{
    request_counts_add(&stats->requests, protocol, status, 1);
    histogram_observe(&stats->request_seconds, seconds);
}

void stats_add_rejection(struct stats *stats, enum reject_reason reason)
{
    uv_mutex_lock(&stats->mutex);
    stats->rejected[reason]++;
    uv_mutex_unlock(&stats->mutex);
}

void stats_add_wait(struct stats *stats, double seconds)
{
    uv_mutex_lock(&stats->mutex);
    histogram_observe(&stats->queue_seconds, seconds);
    uv_mutex_unlock(&stats->mutex);
}

static void add_batch(struct stats *stats, size_t rows, double seconds)
{
    histogram_observe(&stats->compute_seconds, seconds);
    histogram_observe(&stats->batch_rows, (double)rows);
    oip_statistics_add_batch(&stats->times, rows, (uint64_t)(seconds * 1e9));
    stats->rows += rows;
    stats->batches++;
}

void stats_add_batch(struct stats *stats, size_t rows, double seconds)
{
    uv_mutex_lock(&stats->mutex);
    add_batch(stats, rows, seconds);
    uv_mutex_unlock(&stats->mutex);
}

void stats_add_nonfinite(struct stats *stats, size_t rows)
{
    if (rows == 0)
        return;
    uv_mutex_lock(&stats->mutex);
    stats->times.nonfinite_count += rows;
    uv_mutex_unlock(&stats->mutex);
}

/* The class answered for a row is looked for once, however many gates there are. */
static void count_classes(struct stats *stats, const struct tally_batch *batch, size_t row)
{
    const size_t class = routing_predicted(batch->scores + row * batch->classes, batch->classes);
    for (size_t i = 0; i < stats->routing[TAG_NONE]->gate_count; i++) {
        const struct moed_routing *routing = batch->routing[i];
        const size_t items = routing->items / batch->rows;
        for (size_t item = row * items; item < (row + 1) * items; item++)
            routing_detail_predict(&stats->details[i],
                                   (size_t)routing->choice[item * routing->top_k], class);
    }
}

static void count_details(struct stats *stats, const struct tally_batch *batch, size_t first,
                          size_t end)
{
    for (size_t i = 0; i < stats->routing[TAG_NONE]->gate_count; i++) {
        const struct moed_routing *routing = batch->routing[i];
        const size_t items = routing->items / batch->rows;
        routing_detail_count(&stats->details[i], routing->choice + first * items * routing->top_k,
                             (end - first) * items, stats->batches);
    }
    for (size_t row = first; batch->scores && row < end; row++)
        count_classes(stats, batch, row);
}

static struct tally *tally_of(struct stats *stats, size_t tag)
{
    if (!stats->routing[tag])
        stats->routing[tag] = tally_empty(stats->routing[TAG_NONE]);
    return stats->routing[tag];
}

void stats_count_intervened(struct stats *stats, size_t tag, const struct tally_batch *batch,
                            size_t first, size_t end)
{
    uv_mutex_lock(&stats->mutex);
    tally_count_intervened(tally_of(stats, tag), batch, first, end);
    uv_mutex_unlock(&stats->mutex);
}

void stats_count(struct stats *stats, size_t tag, const struct tally_batch *batch, size_t first,
                 size_t end)
{
    uv_mutex_lock(&stats->mutex);
    tally_count(tally_of(stats, tag), batch, first, end);
    if (stats->details)
        count_details(stats, batch, first, end);
    uv_mutex_unlock(&stats->mutex);
}

/* ---- steps ---- */

static void count_choices(const struct stats *stats, struct routing_detail *details,
                          const struct tally_batch *batch, size_t first, size_t end)
{
    for (size_t i = 0; i < stats->routing[TAG_NONE]->gate_count; i++) {
        const struct moed_routing *routing = batch->routing[i];
        const size_t items = routing->items / batch->rows;
        routing_detail_count(&details[i], routing->choice + first * items * routing->top_k,
                             (end - first) * items, stats->batches);
    }
}

/* Neighbours of one tag are counted in it at once. */
static void count_spans(struct stats *stats, const struct tally_batch *batch,
                        const struct step_span *spans, size_t count)
{
    for (size_t i = 0, end; i < count; i = end) {
        for (end = i + 1; end < count && spans[end].tag == spans[i].tag &&
                          spans[end].first == spans[end - 1].end;)
            end++;
        tally_count(tally_of(stats, spans[i].tag), batch, spans[i].first, spans[end - 1].end);
    }
    for (size_t i = 0; i < count; i++) {
        const struct step_span *span = &spans[i];
        count_choices(stats, stats->phases[PHASE_PROMPT], batch, span->first, span->generated);
        count_choices(stats, stats->phases[PHASE_GENERATED], batch, span->generated, span->end);
        count_details(stats, batch, span->first, span->end);
    }
}

static void add_pending(struct pending *pending, const struct tally_batch *batch,
                        const struct step_span *span, uint64_t number)
{
    for (size_t row = span->first; row < span->end; row++)
        pending_add(pending, batch, row,
                    &(struct pending_row){batch->at, number, span->tag, row < span->generated});
}

/* Of rows of larger steps. */
static void count_choice(struct stats *stats, size_t gate, size_t row)
{
    const struct pending_row *of = pending_at(&stats->pending, row);
    const enum phase phase = of->prompt ? PHASE_PROMPT : PHASE_GENERATED;
    const int32_t *choice = pending_choice(&stats->pending, gate, row);
    routing_detail_count(&stats->phases[phase][gate], choice, 1, of->batch);
    routing_detail_count(&stats->details[gate], choice, 1, of->batch);
}

/* Of rows that were each alone in their step. */
static void count_alone(struct stats *stats, size_t gate, size_t first, size_t end)
{
    const struct pending *pending = &stats->pending;
    const size_t pitch = pending->pitch / sizeof(int32_t);
    routing_detail_count_alone(&stats->details[gate], pending_choice(pending, gate, first), pitch,
                               end - first);
    for (size_t row = first, to; row < end; row = to) {
        const bool prompt = pending_at(pending, row)->prompt;
        for (to = row + 1; to < end && pending_at(pending, to)->prompt == prompt;)
            to++;
        routing_detail_count_alone(&stats->phases[prompt ? PHASE_PROMPT : PHASE_GENERATED][gate],
                                   pending_choice(pending, gate, row), pitch, to - row);
    }
}

/* Gate after gate: what one row is counted in is still in the cache for the next. */
static void count_pending_details(struct stats *stats)
{
    const struct pending *pending = &stats->pending;
    for (size_t row = 0, end; row < pending->count; row = end) {
        const size_t alone = pending_end_alone(pending, row);
        for (end = alone; end < pending->count && pending_end_alone(pending, end) == end;)
            end++;
        for (size_t i = 0; i < pending->gate_count; i++) {
            if (alone > row)
                count_alone(stats, i, row, alone);
            for (size_t other = alone; other < end; other++)
                count_choice(stats, i, other);
        }
    }
}

static void count_pending(struct stats *stats)
{
    struct pending *pending = &stats->pending;
    for (size_t row = 0, end; row < pending->count; row = end) {
        const size_t tag = pending_at(pending, row)->tag;
        for (end = row + 1; end < pending->count && pending_at(pending, end)->tag == tag;)
            end++;
        pending_tally(pending, tally_of(stats, tag), row, end);
    }
    count_pending_details(stats);
    pending->count = 0;
}

/* Counts what does not wait: the experts of prompts, and rows that were routed as asked. Leaves the
 * other spans in `spans`, and returns how many there are. */
static size_t count_at_once(struct stats *stats, const struct tally_batch *batch,
                            struct step_span *spans, size_t count)
{
    const size_t gates = stats->routing[TAG_NONE]->gate_count;
    size_t left = 0;
    for (size_t i = 0; i < count; i++) {
        const struct step_span *span = &spans[i];
        if (span->intervened) {
            tally_count_intervened(tally_of(stats, span->tag), batch, span->first, span->end);
            continue;
        }
        if (span->first < span->generated)
            sequence_stats_count_prompt(&stats->sequences, batch->routing, gates, span->first,
                                        span->generated);
        spans[left++] = *span;
    }
    return left;
}

void stats_add_step(struct stats *stats, const struct tally_batch *batch,
                    const struct step_counts *step)
{
    uv_mutex_lock(&stats->mutex);
    add_batch(stats, batch->rows, step->seconds);
    stats->times.nonfinite_count += step->nonfinite;
    stats->sequences.tokens[PHASE_PROMPT] += step->prompt_rows;
    const size_t count = count_at_once(stats, batch, step->spans, step->span_count);
    const bool waits = pending_takes(&stats->pending, batch);
    if (!waits || !pending_has_room(&stats->pending, batch))
        count_pending(stats);
    for (size_t i = 0; waits && i < count; i++)
        add_pending(&stats->pending, batch, &step->spans[i], stats->batches);
    if (!waits)
        count_spans(stats, batch, step->spans, count);
    uv_mutex_unlock(&stats->mutex);
}

void stats_add_cached(struct stats *stats, size_t tokens)
{
    uv_mutex_lock(&stats->mutex);
    stats->sequences.cached += tokens;
    uv_mutex_unlock(&stats->mutex);
}

void stats_add_token(struct stats *stats, bool first, double seconds)
{
    struct sequence_stats *sequences = &stats->sequences;
    uv_mutex_lock(&stats->mutex);
    sequences->tokens[PHASE_GENERATED]++;
    histogram_observe(first ? &sequences->first_token_seconds : &sequences->next_token_seconds,
                      seconds);
    uv_mutex_unlock(&stats->mutex);
}

void stats_judge(struct stats *stats, size_t tag, const struct answered_rows *rows,
                 const int32_t *labels)
{
    uv_mutex_lock(&stats->mutex);
    tally_judge(tally_of(stats, tag), stats->details, rows, labels);
    uv_mutex_unlock(&stats->mutex);
}

/* ---- reading ---- */

void stats_lock(struct stats *stats)
{
    uv_mutex_lock(&stats->mutex);
    count_pending(stats);
}

void stats_unlock(struct stats *stats)
{
    uv_mutex_unlock(&stats->mutex);
}

void stats_add(struct stats *total, struct stats *stats)
{
    stats_lock(stats);
    request_counts_merge(&total->requests, &stats->requests);
    histogram_add(&total->request_seconds, &stats->request_seconds);
    histogram_add(&total->queue_seconds, &stats->queue_seconds);
    histogram_add(&total->compute_seconds, &stats->compute_seconds);
    histogram_add(&total->batch_rows, &stats->batch_rows);
    total->rows += stats->rows;
    total->queue_rows += stats->queue_rows;
    oip_statistics_merge(&total->times, &stats->times);
    for (int reason = 0; reason < REJECT_COUNT; reason++)
        total->rejected[reason] += stats->rejected[reason];
    sequence_stats_add(&total->sequences, &stats->sequences);
    for (size_t tag = 0; tag < stats->tag_count; tag++)
        if (stats->routing[tag])
            tally_add(total->routing[TAG_NONE], stats->routing[tag]);
    stats_unlock(stats);
}
