/* Counts of one served model, under one mutex. */
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
}

static void free_details(const struct stats *stats, struct routing_detail *details)
{
    for (size_t i = 0; details && i < stats->routing[TAG_NONE]->gate_count; i++)
        routing_detail_close(&details[i]);
    free(details);
}

void stats_close(struct stats *stats)
{
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

void stats_add_batch(struct stats *stats, size_t rows, double seconds)
{
    uv_mutex_lock(&stats->mutex);
    histogram_observe(&stats->compute_seconds, seconds);
    histogram_observe(&stats->batch_rows, (double)rows);
    oip_statistics_add_batch(&stats->times, rows, (uint64_t)(seconds * 1e9));
    stats->rows += rows;
    stats->batches++;
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

static void count_details(struct stats *stats, const struct tally_batch *batch, size_t first,
                          size_t end)
{
    count_choices(stats, stats->details, batch, first, end);
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

void stats_count_span(struct stats *stats, bool counted, const struct tally_batch *batch,
                      size_t first, size_t generated, size_t end)
{
    uv_mutex_lock(&stats->mutex);
    stats->sequences.tokens[PHASE_PROMPT] += generated - first;
    if (counted) {
        sequence_stats_count_prompt(&stats->sequences, batch->routing,
                                    stats->routing[TAG_NONE]->gate_count, first, generated);
        count_choices(stats, stats->phases[PHASE_PROMPT], batch, first, generated);
        count_choices(stats, stats->phases[PHASE_GENERATED], batch, generated, end);
    }
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

void stats_add(struct stats *total, struct stats *stats)
{
    uv_mutex_lock(&stats->mutex);
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
    uv_mutex_unlock(&stats->mutex);
}

/* ---- all shards of a model ---- */

uint64_t stats_now(void)
{
    return (UINT64_C(1) << 61) + uv_hrtime(); /* 73 years */
}

struct model_stats *model_stats_new(const struct moed_model_info *info, size_t classes,
                                    size_t loops, size_t max_tags, uint64_t now)
{
    struct model_stats *stats = xcalloc(1, sizeof *stats + (loops + 1) * sizeof *stats->loop);
    atomic_init(&stats->holders, 1);
    if (uv_mutex_init(&stats->mutex) != 0)
        out_of_memory();
    tags_init(&stats->tags, max_tags);
    feedback_init(&stats->feedback);
    size_t tags = tags_end(&stats->tags);
    stats->histories = xcalloc(tags, sizeof *stats->histories);
    for (size_t tag = 0; tag < tags; tag++)
        history_init(&stats->histories[tag], NULL, now);
    stats->loops = loops;
    for (size_t i = 0; i <= loops; i++) {
        stats_init(&stats->loop[i], info, tags);
        stats_need_details(&stats->loop[i], info, classes);
    }
    return stats;
}

struct model_stats *model_stats_hold(struct model_stats *stats)
{
    atomic_fetch_add_explicit(&stats->holders, 1, memory_order_relaxed);
    return stats;
}

void model_stats_release(struct model_stats *stats)
{
    if (atomic_fetch_sub(&stats->holders, 1) > 1)
        return;
    for (size_t i = 0; i <= stats->loops; i++)
        stats_close(&stats->loop[i]);
    for (size_t tag = 0; tag < tags_end(&stats->tags); tag++)
        history_close(&stats->histories[tag]);
    free(stats->histories);
    tally_free(stats->recorded.from);
    tally_free(stats->recorded.until);
    tags_close(&stats->tags);
    feedback_close(&stats->feedback);
    uv_mutex_destroy(&stats->mutex);
    free(stats);
}

bool model_stats_fit(const struct model_stats *stats, const struct moed_model_info *info,
                     size_t classes)
{
    const struct stats *shard = &stats->loop[0];
    bool fits = tally_fits(shard->routing[TAG_NONE], info);
    for (size_t i = 0; fits && i < info->gate_count; i++)
        fits =
            shard->details[i].top_k == info->gates[i].top_k && shard->details[i].classes == classes;
    return fits;
}

void stats_snapshot(struct model_stats *stats, const struct moed_model_info *info,
                    struct stats *total)
{
    stats_init(total, info, 1);
    for (size_t i = 0; i < stats->loops; i++)
        stats_add(total, &stats->loop[i]);
}

uint64_t model_stats_rows(struct model_stats *stats, size_t tag, bool before_too)
{
    uint64_t rows = 0;
    for (size_t i = 0; i < stats->loops + before_too; i++) {
        uv_mutex_lock(&stats->loop[i].mutex);
        const struct tally *tally = stats->loop[i].routing[tag];
        rows += tally ? tally->rows : 0;
        uv_mutex_unlock(&stats->loop[i].mutex);
    }
    return rows;
}

/* ---- windows ---- */

size_t model_stats_uses(const struct model_stats *stats)
{
    return stats->loops * DETAIL_RECENT;
}

static void add_detail(struct stats *shard, const struct routing_detail *detail,
                       struct routing_detail *total)
{
    uv_mutex_lock(&shard->mutex);
    routing_detail_add(total, detail);
    uv_mutex_unlock(&shard->mutex);
}

/* What came before this process comes first. */
void model_stats_detail(struct model_stats *stats, size_t gate, struct routing_detail *total)
{
    struct stats *loop = stats->loop, *before = &loop[stats->loops];
    add_detail(before, &before->details[gate], total);
    for (size_t i = 0; i < stats->loops; i++)
        add_detail(&loop[i], &loop[i].details[gate], total);
    routing_detail_keep_latest(total, model_stats_uses(stats));
}

void model_stats_phase(struct model_stats *stats, enum phase phase, size_t gate,
                       struct routing_detail *total)
{
    struct stats *loop = stats->loop, *before = &loop[stats->loops];
    add_detail(before, &before->phases[phase][gate], total);
    for (size_t i = 0; i < stats->loops; i++)
        add_detail(&loop[i], &loop[i].phases[phase][gate], total);
    routing_detail_keep_latest(total, model_stats_uses(stats));
}

struct tally *model_stats_totals(struct model_stats *stats, size_t tag)
{
    struct tally *totals = NULL;
    for (size_t i = 0; i <= stats->loops; i++) {
        struct stats *shard = &stats->loop[i];
        uv_mutex_lock(&shard->mutex);
        if (totals && shard->routing[tag])
            tally_add(totals, shard->routing[tag]);
        else if (shard->routing[tag])
            totals = tally_copy(shard->routing[tag]);
        uv_mutex_unlock(&shard->mutex);
    }
    return totals;
}

void model_stats_tick(struct model_stats *stats, uint64_t now)
{
    uv_mutex_lock(&stats->mutex);
    for (size_t tag = 0; tag < tags_end(&stats->tags); tag++) {
        if (!history_is_due(&stats->histories[tag], now))
            continue;
        struct tally *totals = model_stats_totals(stats, tag);
        history_tick(&stats->histories[tag], totals, now);
        tally_free(totals);
    }
    uv_mutex_unlock(&stats->mutex);
}

/* to += until - then; NULL: nothing had been counted. */
static void add_difference(struct tally *to, const struct tally *until, const struct tally *then)
{
    if (until)
        tally_add(to, until);
    if (then)
        tally_subtract(to, then);
}

static void add_tag(struct stats_window *of, struct model_stats *stats, enum window window,
                    size_t tag)
{
    uint64_t began, ignored;
    const struct history *history = &stats->histories[tag];
    const struct tally *begin = history_begin(history, window, 0, of->now, &began);
    const struct tally *before = history_begin(history, window, 1, of->now, &ignored);
    const struct tally *recent = history_begin(history, WINDOW_5M, 0, of->now, &ignored);
    const struct tally *hour = history_begin(history, WINDOW_1H, 0, of->now, &ignored);
    struct tally *totals = model_stats_totals(stats, tag);
    of->seconds = (double)(of->now - began) / 1e9; /* the same for every tag */
    add_difference(of->tally, totals, begin);
    if (of->before) {
        add_difference(of->before, begin, before);
        add_difference(of->recent, totals, recent);
        add_difference(of->earlier, recent, hour);
    }
    tally_free(totals);
}

void stats_window_init(struct stats_window *of, struct model_stats *stats, enum window window,
                       int tag, bool compared, uint64_t now)
{
    const struct tally *like = stats->loop[0].routing[TAG_NONE];
    *of = (struct stats_window){.now = now, .tally = tally_empty(like)};
    if (compared) {
        of->before = tally_empty(like);
        of->recent = tally_empty(like);
        of->earlier = tally_empty(like);
    }
    uv_mutex_lock(&stats->mutex);
    for (size_t i = 0; i < tags_end(&stats->tags); i++)
        if (tag == STATS_ALL_TAGS || i == (size_t)tag)
            add_tag(of, stats, window, i);
    uv_mutex_unlock(&stats->mutex);
}

void stats_window_close(struct stats_window *of)
{
    tally_free(of->tally);
    tally_free(of->before);
    tally_free(of->recent);
    tally_free(of->earlier);
}

static void reset_details(struct stats *shard)
{
    uv_mutex_lock(&shard->mutex);
    for (size_t i = 0; i < shard->routing[TAG_NONE]->gate_count; i++)
        routing_detail_reset(&shard->details[i]);
    for (int phase = 0; phase < PHASE_COUNT; phase++)
        for (size_t i = 0; shard->phases[phase] && i < shard->routing[TAG_NONE]->gate_count; i++)
            routing_detail_reset(&shard->phases[phase][i]);
    uv_mutex_unlock(&shard->mutex);
}

void model_stats_reset(struct model_stats *stats, uint64_t now)
{
    uv_mutex_lock(&stats->mutex);
    for (size_t tag = 0; tag < tags_end(&stats->tags); tag++) {
        struct tally *totals = model_stats_totals(stats, tag);
        history_close(&stats->histories[tag]);
        history_init(&stats->histories[tag], totals, now);
        tally_free(totals);
    }
    for (size_t i = 0; i <= stats->loops; i++)
        reset_details(&stats->loop[i]);
    uv_mutex_unlock(&stats->mutex);
}
