/* One function for each struct walks its fields, to write and to read them. */
#include "server/statistics/snapshot.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/hash.h"
#include "core/memory.h"
#include "proto/annotation.h"
#include "server/access/packed.h"
#include "server/statistics/snapshot_detail.h"
#include "server/statistics/snapshot_earlier.h"

/* ---- the header ---- */

/* Version 1 had no seconds of experts and no batches by their number, version 2 no latest uses and
 * no phases of sequences, version 3 no right answers by class, version 4 no quality by class,
 * version 5 no overflowed items, version 6 weights in place of parts, version 7 no pairs of the
 * busiest experts. All are still read. */
static const char FORMAT[] = "moed routing 8\n";

enum {
    FORMAT_BYTES = sizeof FORMAT - 1,
    VERSION_AT = FORMAT_BYTES - 2,
    HEADER_BYTES = FORMAT_BYTES + 8,
    VERSION = 8
};

void snapshot_seal(void *bytes, size_t length)
{
    unsigned char *data = bytes;
    if (length < HEADER_BYTES)
        return;
    const uint64_t sum = hash_bytes(HASH_BASIS, data + HEADER_BYTES, length - HEADER_BYTES);
    for (size_t i = 0; i < 8; i++)
        data[FORMAT_BYTES + i] = (unsigned char)(sum >> 8 * i);
}

/* The number behind the format's name; 0: it is none of ours. */
static unsigned version_of(const unsigned char *data, size_t length)
{
    enum { MOST_DIGITS = 4 };
    unsigned version = 0;
    size_t at = VERSION_AT;
    if (length < HEADER_BYTES || memcmp(data, FORMAT, VERSION_AT) != 0 || data[at] == '0')
        return 0;
    for (; at < VERSION_AT + MOST_DIGITS && data[at] >= '0' && data[at] <= '9'; at++)
        version = 10 * version + (unsigned)(data[at] - '0');
    return data[at] == '\n' ? version : 0;
}

static bool is_sealed(const unsigned char *data, size_t length)
{
    const unsigned version = version_of(data, length);
    if (version == 0 || version > VERSION)
        return false;
    uint64_t sum = hash_bytes(HASH_BASIS, data + HEADER_BYTES, length - HEADER_BYTES);
    for (size_t i = 0; i < 8; i++, sum >>= 8)
        if (data[FORMAT_BYTES + i] != (sum & 0xFF))
            return false;
    return true;
}

/* ---- times ---- */

struct snapshot_time snapshot_time(void)
{
    struct timespec wall;
    clock_gettime(CLOCK_REALTIME, &wall);
    return (struct snapshot_time){stats_now(),
                                  (uint64_t)wall.tv_sec * 1000000000 + (uint64_t)wall.tv_nsec};
}

/* What all functions here pass on. */
struct walk {
    struct packed packed;
    uint64_t now; /* at the time of writing, in the clock of who writes or reads */
    int version;
    bool uses; /* the latest uses are written */
    const struct moed_model_info *info;
    struct model_stats *stats;
};

/* As an age; 0 stays 0. */
static void walk_time(struct walk *walk, uint64_t *time)
{
    uint64_t age = *time == 0 ? 0 : walk->now > *time ? walk->now - *time + 1 : 1;
    packed_index(&walk->packed, &age, UINT64_MAX);
    if (!walk->packed.out)
        *time = age == 0 ? 0 : age <= walk->now ? walk->now - age + 1 : 1;
}

/* ---- counts ---- */

static void walk_histogram(struct packed *packed, uint64_t counts[MOED_HISTOGRAM_PARTS])
{
    for (size_t i = 0; i < MOED_HISTOGRAM_PARTS; i++)
        packed_count(packed, &counts[i]);
}

static void walk_gate(struct walk *walk, struct moed_gate_counts *counts)
{
    struct packed *packed = &walk->packed;
    packed_count(packed, &counts->items);
    packed_count(packed, &counts->intervened);
    if (walk->version > 5)
        packed_count(packed, &counts->overflowed);
    packed_sum(packed, &counts->entropy);
    packed_sum(packed, &counts->margin);
    walk_histogram(packed, counts->entropies);
    walk_histogram(packed, counts->margins);
    for (size_t i = 0; i < counts->experts; i++) {
        struct moed_expert_counts *expert = &counts->expert[i];
        packed_count(packed, &expert->selected);
        packed_count(packed, &expert->top1);
        packed_count(packed, &expert->dropped);
        walk_time(walk, &expert->last);
        packed_sum(packed, &expert->weight);
        packed_sum(packed, &expert->part);
        packed_sum(packed, &expert->probability);
        if (walk->version > 1)
            packed_sum(packed, &expert->seconds);
    }
}

static void walk_tally(struct walk *walk, struct tally *tally)
{
    struct packed *packed = &walk->packed;
    bool judged = tally->quality;
    packed_count(packed, &tally->rows);
    packed_count(packed, &tally->labelled);
    for (size_t i = 0; i < tally->gate_count; i++)
        walk_gate(walk, tally->gates[i]);
    packed_flag(packed, &judged);
    if (judged && !packed->failed)
        tally_need_quality(tally);
    for (size_t i = 0; tally->quality && i < tally->gate_count; i++)
        for (size_t e = 0; e < tally->gates[i]->experts; e++)
            snapshot_walk_quality(packed, &tally->quality[i][e]);
}

/* NULL: zero. The caller owns what was read. */
static void walk_optional(struct walk *walk, struct tally **tally)
{
    bool some = *tally;
    packed_flag(&walk->packed, &some);
    if (!some || walk->packed.failed)
        return;
    if (!*tally)
        *tally = tally_empty(walk->stats->loop[0].routing[TAG_NONE]);
    walk_tally(walk, *tally);
}

/* ---- details ---- */

/* Closes the sum. */
static void write_sum(struct walk *walk, struct routing_detail *sum)
{
    if (!walk->uses)
        routing_detail_keep_latest(sum, 0);
    snapshot_walk_detail(&walk->packed, VERSION, sum);
    if (sum->busiest.expert)
        walk_time(walk, &sum->busiest.since);
    routing_detail_close(sum);
}

static void write_details(struct walk *walk)
{
    struct routing_detail sum;
    for (size_t i = 0; i < walk->info->gate_count; i++) {
        const struct moed_gate_info *gate = &walk->info->gates[i];
        const size_t classes = walk->stats->loop[0].details[i].classes;
        routing_detail_init(&sum, gate->experts, gate->top_k, classes, walk->info->gate_count);
        model_stats_detail(walk->stats, i, &sum);
        write_sum(walk, &sum);
    }
    for (int phase = 0; walk->info->sequence && phase < PHASE_COUNT; phase++)
        for (size_t i = 0; i < walk->info->gate_count; i++) {
            const struct moed_gate_info *gate = &walk->info->gates[i];
            routing_detail_init_steps(&sum, gate->experts, gate->top_k);
            model_stats_phase(walk->stats, (enum phase)phase, i, &sum);
            write_sum(walk, &sum);
        }
}

static void read_detail(struct walk *walk, struct routing_detail *detail)
{
    if (walk->packed.failed)
        return;
    snapshot_walk_detail(&walk->packed, walk->version, detail);
    if (detail->busiest.expert)
        walk_time(walk, &detail->busiest.since);
    routing_detail_keep_latest(detail, model_stats_uses(walk->stats));
}

/* The loops go on with the same. */
static void read_busiest(struct walk *walk, size_t gate)
{
    struct stats *loop = walk->stats->loop;
    const struct routing_busiest *busiest = &loop[walk->stats->loops].details[gate].busiest;
    for (size_t i = 0; busiest->expert && i < walk->stats->loops; i++)
        routing_detail_choose(&loop[i].details[gate], busiest->expert, busiest->since);
}

static void read_details(struct walk *walk)
{
    struct stats *before = &walk->stats->loop[walk->stats->loops];
    const bool phases = walk->info->sequence && walk->version >= 3;
    for (size_t i = 0; i < walk->info->gate_count; i++) {
        read_detail(walk, &before->details[i]);
        read_busiest(walk, i);
    }
    for (int phase = 0; phases && phase < PHASE_COUNT; phase++)
        for (size_t i = 0; i < walk->info->gate_count; i++)
            read_detail(walk, &before->phases[phase][i]);
}

/* ---- the gates it is about ---- */

static void walk_same(struct packed *packed, uint64_t value, bool *same)
{
    uint64_t other = value;
    packed_count(packed, &other);
    *same &= other == value;
}

/* Whether they are those of the model. */
static bool walk_gates(struct walk *walk)
{
    struct packed *packed = &walk->packed;
    bool same = true;
    walk_same(packed, walk->info->gate_count, &same);
    if (walk->version >= 3)
        walk_same(packed, walk->info->sequence, &same);
    for (size_t i = 0; same && i < walk->info->gate_count; i++) {
        const struct moed_gate_info *gate = &walk->info->gates[i];
        char name[2 * NAME_MAX_BYTES + 2];
        snprintf(name, sizeof name, "%s", gate->name);
        packed_text(packed, name, sizeof name);
        same &= strcmp(name, gate->name) == 0;
        walk_same(packed, gate->experts, &same);
        walk_same(packed, gate->top_k, &same);
        walk_same(packed, walk->stats->loop[0].details[i].classes, &same);
    }
    return same;
}

/* ---- writing a tag ---- */

static struct tally *copy_of(const struct tally *tally)
{
    return tally ? tally_copy(tally) : NULL;
}

/* A mark of a ring by its number since the beginning, copied under the lock. False when there is
 * none, or no longer: it has left the ring, or the history was begun anew. */
static bool copy_mark(struct walk *walk, size_t tag, enum window window, size_t number,
                      uint64_t began, struct mark *copy)
{
    uv_mutex_lock(&walk->stats->mutex);
    const struct history *history = &walk->stats->histories[tag];
    const struct ring *ring = &history->rings[window];
    const bool there =
        history->began == began && number < ring->count && number + HISTORY_MARKS >= ring->count;
    if (there) {
        const struct mark *mark = &ring->marks[number % HISTORY_MARKS];
        *copy = (struct mark){mark->step, copy_of(mark->totals)};
    }
    uv_mutex_unlock(&walk->stats->mutex);
    return there;
}

static void write_mark(struct walk *walk, enum window window, struct mark *mark)
{
    bool more = true;
    uint64_t time = history_time(window, mark);
    packed_flag(&walk->packed, &more);
    walk_time(walk, &time);
    walk_optional(walk, &mark->totals);
    tally_free(mark->totals);
}

static void write_marks(struct walk *walk, size_t tag, enum window window, size_t count,
                        uint64_t began)
{
    bool more = false;
    struct mark mark;
    for (size_t i = count > HISTORY_MARKS ? count - HISTORY_MARKS : 0; i < count; i++)
        if (copy_mark(walk, tag, window, i, began, &mark))
            write_mark(walk, window, &mark);
    packed_flag(&walk->packed, &more);
}

static void write_tag(struct walk *walk, size_t tag, bool windows)
{
    size_t counts[WINDOW_COUNT];
    uv_mutex_lock(&walk->stats->mutex);
    const struct history *history = &walk->stats->histories[tag];
    uint64_t began = history->began, time = began;
    struct tally *totals = model_stats_totals(walk->stats, tag), *base = copy_of(history->base);
    for (size_t i = 0; i < WINDOW_COUNT; i++)
        counts[i] = windows ? history->rings[i].count : 0;
    uv_mutex_unlock(&walk->stats->mutex);
    walk_time(walk, &time);
    walk_optional(walk, &totals);
    walk_optional(walk, &base);
    for (int window = 0; window < WINDOW_COUNT; window++)
        write_marks(walk, tag, (enum window)window, counts[window], began);
    tally_free(totals);
    tally_free(base);
}

/* ---- reading a tag ---- */

/* What was counted then is part of what is counted now. Sums need no such check: they are not used
 * as counts. */
static bool is_part(const struct tally *then, const struct tally *now)
{
    bool part = !then || (now && then->rows <= now->rows && then->labelled <= now->labelled);
    for (size_t i = 0; then && part && i < then->gate_count; i++) {
        const struct moed_gate_counts *one = then->gates[i], *other = now->gates[i];
        part = one->items <= other->items && one->intervened <= other->intervened &&
               one->overflowed <= other->overflowed;
        for (size_t e = 0; part && e < one->experts; e++)
            part = one->expert[e].selected <= other->expert[e].selected &&
                   one->expert[e].top1 <= other->expert[e].top1;
    }
    return part;
}

static void read_marks(struct walk *walk, struct history *history, enum window window,
                       const struct tally *totals)
{
    struct packed *packed = &walk->packed;
    uint64_t before = 0, time = 0;
    for (size_t i = 0; i < HISTORY_MARKS + 1; i++) {
        bool more = false;
        struct tally *then = NULL;
        packed_flag(packed, &more);
        if (!more)
            break;
        walk_time(walk, &time);
        walk_optional(walk, &then);
        packed->failed |= i == HISTORY_MARKS || time < before || !is_part(then, totals);
        history_add_mark(history, window, time, then);
        before = time;
    }
    /* what came after the last mark came before the end of the process */
    history_add_mark(history, window, walk->now, copy_of(totals));
}

/* Into a history that is zero. */
static struct tally *read_history(struct walk *walk, struct history *history)
{
    struct tally *totals = NULL;
    walk_time(walk, &history->began);
    walk_optional(walk, &totals);
    walk_optional(walk, &history->base);
    walk->packed.failed |= !is_part(history->base, totals);
    for (int window = 0; window < WINDOW_COUNT; window++)
        read_marks(walk, history, (enum window)window, totals);
    if (walk->version < 7)
        snapshot_make_parts(history, totals);
    return totals;
}

/* A tag for which this server has no place joins "other", whose windows begin anew. */
static void read_tag(struct walk *walk, size_t tag)
{
    struct stats *before = &walk->stats->loop[walk->stats->loops];
    struct history *history = &walk->stats->histories[tag], read = {0};
    const bool joins = before->routing[tag] && before->routing[tag]->rows > 0;
    struct tally *totals = read_history(walk, &read);
    tally_join(&before->routing[tag], totals);
    if (joins) {
        history_join(history, &read, before->routing[tag], walk->now);
        return;
    }
    history_close(history);
    *history = read;
}

/* ---- tags ---- */

static void write_tags(struct walk *walk, bool windows)
{
    const size_t end = tags_end(&walk->stats->tags);
    bool more = true;
    for (size_t tag = TAG_NONE; tag < end; tag++) {
        char name[NAME_MAX_BYTES + 1] = "";
        const char *known = tag == TAG_NONE ? "" : tags_name(&walk->stats->tags, tag);
        if (!known)
            continue;
        snprintf(name, sizeof name, "%s", known);
        packed_flag(&walk->packed, &more);
        packed_text(&walk->packed, name, sizeof name);
        write_tag(walk, tag, windows);
    }
    more = false;
    packed_flag(&walk->packed, &more);
}

static void read_tags(struct walk *walk)
{
    for (bool more = true;;) {
        char name[NAME_MAX_BYTES + 1];
        packed_flag(&walk->packed, &more);
        if (!more || walk->packed.failed)
            return;
        packed_text(&walk->packed, name, sizeof name);
        walk->packed.failed |= *name && annotation_check_tag(name, NULL) != 0;
        if (walk->packed.failed)
            return;
        read_tag(walk, *name ? tags_index(&walk->stats->tags, name) : TAG_NONE);
    }
}

/* ---- a snapshot ---- */

static void write_all(struct walk *walk, const struct snapshot_time *time, bool windows)
{
    unsigned char sum[8] = {0};
    uint64_t wall = time->wall;
    buffer_append(walk->packed.out, FORMAT, FORMAT_BYTES);
    buffer_append(walk->packed.out, sum, sizeof sum);
    packed_index(&walk->packed, &wall, UINT64_MAX);
    (void)walk_gates(walk);
    write_details(walk);
    write_tags(walk, windows);
    if (!walk->packed.out->failed)
        snapshot_seal(walk->packed.out->data, walk->packed.out->length);
}

int snapshot_write(struct model_stats *stats, const struct moed_model_info *info,
                   const struct snapshot_time *time, struct buffer *body, struct error *err)
{
    static const struct {
        bool uses, windows;
    } TRIES[] = {{true, true}, {false, true}, {false, false}};
    struct walk walk = {.packed = {.out = body}, .now = time->now, .version = VERSION};
    walk.info = info;
    walk.stats = stats;
    for (size_t i = 0; i < sizeof TRIES / sizeof *TRIES; i++) {
        const size_t limit = body->limit;
        buffer_close(body);
        buffer_init(body, limit);
        walk.uses = TRIES[i].uses;
        write_all(&walk, time, TRIES[i].windows);
        if (!body->failed || body->no_memory)
            break;
    }
    return body->failed ? buffer_error(body, "the snapshot", "statistics are not kept", err) : 0;
}

enum snapshot_kind snapshot_read(struct model_stats *stats, const struct moed_model_info *info,
                                 const struct snapshot_time *time, const void *bytes, size_t length,
                                 struct error *err)
{
    const unsigned char *data = bytes;
    struct walk walk = {.packed = {.at = data, .end = data + length}, .info = info, .stats = stats};
    uint64_t wall;
    if (version_of(data, length) > VERSION) {
        error_set(err, ERROR_UNSUPPORTED,
                  "routing statistics of version %u, of a newer moed; this one knows 1 to %d",
                  version_of(data, length), VERSION);
        return SNAPSHOT_NEWER;
    }
    if (!is_sealed(data, length)) {
        error_set(err, ERROR_INVALID, "no routing statistics of version 1 to %d, or damaged",
                  VERSION);
        return SNAPSHOT_DAMAGED;
    }
    walk.version = data[VERSION_AT] - '0';
    walk.packed.at += HEADER_BYTES;
    packed_index(&walk.packed, &wall, UINT64_MAX);
    const uint64_t gone = time->wall > wall ? time->wall - wall : 0; /* the clock may be set back */
    walk.now = time->now > gone ? time->now - gone : 1;
    if (!walk_gates(&walk) && !walk.packed.failed) {
        error_set(err, ERROR_INVALID, "the statistics are of other gates or classes");
        return SNAPSHOT_OTHER;
    }
    read_details(&walk);
    read_tags(&walk);
    if (!walk.packed.failed && walk.packed.at == walk.packed.end)
        return SNAPSHOT_READ;
    error_set(err, ERROR_INVALID, "the statistics are damaged at byte %zu of %zu",
              (size_t)(walk.packed.at - data), length);
    return SNAPSHOT_DAMAGED;
}
