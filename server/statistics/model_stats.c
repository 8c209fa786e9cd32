/* All shards of a model, and their windows. */
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "server/statistics/stats.h"

uint64_t stats_time(uint64_t hrtime)
{
    return (UINT64_C(1) << 61) + hrtime; /* 73 years */
}

uint64_t stats_now(void)
{
    return stats_time(uv_hrtime());
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
    fits &= (shard->phases[PHASE_PROMPT] != NULL) == info->sequence;
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
        stats_lock(&stats->loop[i]);
        const struct tally *tally = stats->loop[i].routing[tag];
        rows += tally ? tally->rows : 0;
        stats_unlock(&stats->loop[i]);
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
    stats_lock(shard);
    routing_detail_add(total, detail);
    stats_unlock(shard);
}

/* What came before this process comes first. No experts are chosen meanwhile, nor forgotten: all
 * shards have the same busiest. */
void model_stats_detail(struct model_stats *stats, size_t gate, struct routing_detail *total)
{
    struct stats *loop = stats->loop, *before = &loop[stats->loops];
    uv_mutex_lock(&stats->mutex);
    add_detail(before, &before->details[gate], total);
    for (size_t i = 0; i < stats->loops; i++)
        add_detail(&loop[i], &loop[i].details[gate], total);
    uv_mutex_unlock(&stats->mutex);
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
        stats_lock(shard);
        if (totals && shard->routing[tag])
            tally_add(totals, shard->routing[tag]);
        else if (shard->routing[tag])
            totals = tally_copy(shard->routing[tag]);
        stats_unlock(shard);
    }
    return totals;
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

/* ---- the busiest experts ---- */

static bool wants_busiest(const struct model_stats *stats)
{
    const struct stats *shard = &stats->loop[0];
    bool wants = false;
    for (size_t i = 0; i < shard->routing[TAG_NONE]->gate_count; i++)
        wants |= routing_detail_wants_busiest(&shard->details[i]);
    return wants;
}

static void choose(struct model_stats *stats, size_t gate, const uint16_t *expert, uint64_t now)
{
    for (size_t i = 0; i <= stats->loops; i++) {
        stats_lock(&stats->loop[i]);
        routing_detail_choose(&stats->loop[i].details[gate], expert, now);
        stats_unlock(&stats->loop[i]);
    }
}

/* By what was selected since the load, or the last reset. */
static void choose_busiest(struct model_stats *stats, size_t gate,
                           const struct moed_gate_counts *counts, uint64_t now)
{
    const struct routing_detail *detail = &stats->loop[0].details[gate];
    uint16_t busiest[BUSIEST_MAX];
    uint64_t *selected = xcalloc(counts->experts, sizeof *selected), all = 0;
    for (size_t i = 0; i < counts->experts; i++)
        all += selected[i] = counts->expert[i].selected;
    if (all >= BUSIEST_ENOUGH * counts->experts) {
        routing_busiest_find(selected, counts->experts, detail->busiest.side, busiest);
        choose(stats, gate, busiest, now);
    }
    free(selected);
}

static void choose_all(struct model_stats *stats, uint64_t now)
{
    struct stats_window all = {.now = now, .tally = tally_empty(stats->loop[0].routing[TAG_NONE])};
    for (size_t tag = 0; tag < tags_end(&stats->tags); tag++)
        add_tag(&all, stats, WINDOW_ALL, tag);
    for (size_t i = 0; i < all.tally->gate_count; i++)
        if (routing_detail_wants_busiest(&stats->loop[0].details[i]))
            choose_busiest(stats, i, all.tally->gates[i], now);
    stats_window_close(&all);
}

void model_stats_tick(struct model_stats *stats, uint64_t now)
{
    bool due = false;
    uv_mutex_lock(&stats->mutex);
    for (size_t tag = 0; tag < tags_end(&stats->tags); tag++) {
        if (!history_is_due(&stats->histories[tag], now))
            continue;
        due = true;
        struct tally *totals = model_stats_totals(stats, tag);
        history_tick(&stats->histories[tag], totals, now);
        tally_free(totals);
    }
    if (due && wants_busiest(stats))
        choose_all(stats, now);
    uv_mutex_unlock(&stats->mutex);
}

static void reset_details(struct stats *shard)
{
    stats_lock(shard);
    for (size_t i = 0; i < shard->routing[TAG_NONE]->gate_count; i++)
        routing_detail_reset(&shard->details[i]);
    for (int phase = 0; phase < PHASE_COUNT; phase++)
        for (size_t i = 0; shard->phases[phase] && i < shard->routing[TAG_NONE]->gate_count; i++)
            routing_detail_reset(&shard->phases[phase][i]);
    stats_unlock(shard);
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

/* ---- what was read late ---- */

static void join_tag(struct model_stats *stats, size_t tag, struct model_stats *earlier,
                     size_t from, uint64_t now)
{
    struct stats *before = &stats->loop[stats->loops];
    struct tally *counted = earlier->loop[earlier->loops].routing[from], *totals;
    if (counted) {
        stats_lock(before);
        tally_join(&before->routing[tag], tally_copy(counted));
        stats_unlock(before);
        if (stats->recorded.from)
            tally_add(stats->recorded.from, counted); /* it was not counted meanwhile */
        if (stats->recorded.until)
            tally_add(stats->recorded.until, counted);
    }
    totals = model_stats_totals(stats, tag);
    history_join(&stats->histories[tag], &earlier->histories[from], totals, now);
    tally_free(totals);
}

/* Pairs of other experts than those that are counted now cannot be added to them. */
static void join_busiest(struct model_stats *stats, size_t gate, struct routing_detail *earlier)
{
    const struct routing_detail *now = &stats->loop[0].details[gate];
    const size_t bytes = now->busiest.side * sizeof *now->busiest.expert;
    if (earlier->busiest.expert && routing_detail_wants_busiest(now))
        choose(stats, gate, earlier->busiest.expert, earlier->busiest.since);
    if (earlier->busiest.expert &&
        (!now->busiest.expert || memcmp(now->busiest.expert, earlier->busiest.expert, bytes) != 0))
        routing_detail_forget_busiest(earlier);
}

static void join_details(struct model_stats *stats, struct model_stats *earlier)
{
    struct stats *to = &stats->loop[stats->loops];
    const struct stats *from = &earlier->loop[earlier->loops];
    for (size_t i = 0; i < to->routing[TAG_NONE]->gate_count; i++)
        join_busiest(stats, i, &earlier->loop[earlier->loops].details[i]);
    stats_lock(to);
    for (size_t i = 0; i < to->routing[TAG_NONE]->gate_count; i++) {
        routing_detail_add(&to->details[i], &from->details[i]);
        for (int phase = 0; phase < PHASE_COUNT && to->phases[phase]; phase++)
            routing_detail_add(&to->phases[phase][i], &from->phases[phase][i]);
    }
    stats_unlock(to);
}

void model_stats_join(struct model_stats *stats, struct model_stats *earlier, uint64_t now)
{
    uv_mutex_lock(&stats->mutex);
    for (size_t from = 0; from < tags_end(&earlier->tags); from++) {
        const char *name = from == TAG_NONE ? "" : tags_name(&earlier->tags, from);
        if (name)
            join_tag(stats, from == TAG_NONE ? TAG_NONE : tags_index(&stats->tags, name), earlier,
                     from, now);
    }
    join_details(stats, earlier);
    uv_mutex_unlock(&stats->mutex);
}
