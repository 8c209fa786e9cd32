/* Counts are one block of plain integers, so that they can be copied, added and subtracted like
 * values. */
#include "core/gate_counts.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/dense/vector.h"
#include "core/memory.h"
#include "core/moed.h"

/* ---- sums ---- */

static const double UNITS = 0x1p32, LARGEST = 0x1p19;

/* To a whole number of units: doubles of this size have no finer ones. Exact sums of up to 2^21 are
 * made of what it returns. */
static inline double rounded(double value)
{
    const double large = 0x1.8p20;
    return value + large - large;
}

/* Of a number that rounded() or a sum of its results gave. */
static inline int64_t units_of(double value)
{
    return (int64_t)(value * UNITS);
}

double moed_sum_value(__int128 sum)
{
    return (double)sum / UNITS;
}

/* Written as comparisons, which are instructions; fmin() is a call. */
static inline int64_t units_within(double value)
{
    value = value > -LARGEST ? value : -LARGEST; /* NaN, too */
    value = value < LARGEST ? value : LARGEST;
    return units_of(rounded(value));
}

__int128 moed_sum_of(double value)
{
    return units_within(value);
}

/* ---- life ---- */

static size_t bytes_of(size_t experts)
{
    return sizeof(struct moed_gate_counts) + experts * sizeof(struct moed_expert_counts);
}

struct moed_gate_counts *moed_gate_counts_new(size_t experts)
{
    struct moed_gate_counts *counts = xcalloc(1, bytes_of(experts));
    counts->experts = experts;
    return counts;
}

void moed_gate_counts_free(struct moed_gate_counts *counts)
{
    free(counts);
}

/* ---- counting ---- */

/* *mass receives the sum of the absolute weights. */
static inline bool overflows(const float *weight, size_t count, double *mass)
{
    bool beyond = false;
    *mass = 0;
    for (size_t i = 0; i < count; i++) {
        beyond |= !(fabsf(weight[i]) <= (float)LARGEST); /* NaN, too */
        *mass += fabs((double)weight[i]);
    }
    return beyond;
}

/* What all pairs of an item have to know of the others. */
struct weighing {
    bool overflowed;
    double part; /* of a weight of 1 */
};

static inline struct weighing weigh(struct moed_gate_counts *counts, const float *weight, size_t k)
{
    double mass;
    const bool overflowed = overflows(weight, k, &mass);
    counts->overflowed += overflowed;
    return (struct weighing){overflowed, mass > 0 ? 1 / mass : 0};
}

static inline void count_served(struct moed_expert_counts *expert, const struct weighing *weighing,
                                double weight, uint64_t seconds, uint64_t now)
{
    expert->selected++;
    expert->seconds += seconds;
    expert->last = now;
    if (weighing->overflowed)
        return;
    expert->weight += units_of(rounded(weight));
    expert->part += units_of(rounded(fabs(weight) * weighing->part));
}

static void count_selections(struct moed_gate_counts *counts, const struct moed_routing *routing,
                             size_t item, uint64_t now)
{
    const size_t k = routing->top_k;
    const int32_t *served = routing->expert + item * k, *choice = routing->choice + item * k;
    const float *weight = routing->weight + item * k;
    const struct weighing weighing = weigh(counts, weight, k);
    counts->expert[choice[0]].top1++;
    for (size_t slot = 0; slot < k && choice[slot] >= 0; slot++) {
        struct moed_expert_counts *expert = &counts->expert[choice[slot]];
        if (served[slot] < 0)
            expert->dropped++;
        else
            count_served(expert, &weighing, (double)weight[slot],
                         routing->seconds ? routing->seconds[served[slot]] : 0, now);
    }
}

static inline size_t part_of(float value, float parts_per_unit)
{
    float part = value * parts_per_unit;
    if (!(part > 0))
        return 0;
    return part < MOED_HISTOGRAM_PARTS - 1 ? (size_t)part : MOED_HISTOGRAM_PARTS - 1;
}

/* Of some items, each so many numbers after the one before. */
struct distributions {
    size_t items;
    const float *entropy, *margin, *probability;
    size_t pitch, probability_pitch;
};

static void count_certainty(struct moed_gate_counts *counts, const struct distributions *of)
{
    const float parts = MOED_HISTOGRAM_PARTS;
    const float per_bit = counts->experts > 1 ? parts / log2f((float)counts->experts) : 0;
    double entropy = 0, margin = 0;
    for (size_t item = 0; item < of->items; item++) {
        const float bits = of->entropy[item * of->pitch], ahead = of->margin[item * of->pitch];
        entropy += rounded((double)bits);
        margin += rounded((double)ahead);
        counts->entropies[part_of(bits, per_bit)]++;
        counts->margins[part_of(ahead, parts)]++;
    }
    counts->entropy += units_of(entropy);
    counts->margin += units_of(margin);
}

/* Some experts at a time, so that their sums stay in registers or close. */
static VECTORIZED void count_probabilities(struct moed_gate_counts *counts,
                                           const struct distributions *of)
{
    enum { AT_A_TIME = 16 };
    const size_t experts = counts->experts;
    for (size_t from = 0; from < experts; from += AT_A_TIME) {
        const size_t some = experts - from < AT_A_TIME ? experts - from : AT_A_TIME;
        double sum[AT_A_TIME] = {0};
        for (size_t item = 0; item < of->items; item++)
            for (size_t e = 0; e < some; e++)
                sum[e] += rounded((double)of->probability[item * of->probability_pitch + from + e]);
        for (size_t e = 0; e < some; e++)
            counts->expert[from + e].probability += units_of(sum[e]);
    }
}

/* So many items' entropies, of less than 32 bits each, have an exact sum in a double. */
enum { EXACT_ITEMS = 1 << 16 };

static void count_items(struct moed_gate_counts *counts, const struct moed_routing *routing,
                        size_t first, size_t end, uint64_t now)
{
    counts->items += end - first;
    for (size_t item = first; item < end; item++)
        count_selections(counts, routing, item, now);
    for (size_t from = first; routing->probability && from < end; from += EXACT_ITEMS) {
        const size_t to = end - from < EXACT_ITEMS ? end : from + EXACT_ITEMS;
        const struct distributions of = {.items = to - from,
                                         .entropy = routing->entropy + from,
                                         .margin = routing->margin + from,
                                         .probability =
                                             routing->probability + from * counts->experts,
                                         .pitch = 1,
                                         .probability_pitch = counts->experts};
        count_certainty(counts, &of);
        count_probabilities(counts, &of);
    }
}

/* Padding was not routed, and is not counted. */
static bool is_routed(const struct moed_routing *routing, size_t item)
{
    return routing->choice[item * routing->top_k] >= 0;
}

void moed_gate_counts_count(struct moed_gate_counts *counts, const struct moed_routing *routing,
                            size_t first, size_t end, uint64_t now)
{
    assert(counts->experts == routing->experts && first <= end && end <= routing->items);
    for (size_t to; first < end; first = to) {
        bool routed = is_routed(routing, first);
        for (to = first + 1; to < end && is_routed(routing, to) == routed;)
            to++;
        if (routed)
            count_items(counts, routing, first, to, now);
    }
}

/* ---- records ---- */

/* In place of the time of a pair that was dropped. */
static const uint64_t DROPPED = UINT64_MAX;

/* Where the parts of a record are, in their order. */
struct record {
    uint64_t *seconds;  /* [top_k] of each pair */
    int32_t *choice;    /* [top_k] */
    float *weight;      /* [top_k] */
    float *certainty;   /* entropy, margin */
    float *probability; /* [experts] */
};

static inline struct record record_at(const void *record, size_t k)
{
    uint64_t *const seconds = (uint64_t *)record;
    int32_t *const choice = (int32_t *)(seconds + k);
    float *const weight = (float *)(choice + k);
    return (struct record){seconds, choice, weight, weight + k, weight + k + 2};
}

size_t moed_gate_record_bytes(size_t experts, size_t top_k)
{
    const size_t bytes = top_k * (sizeof(uint64_t) + sizeof(int32_t) + sizeof(float)) +
                         (2 + experts) * sizeof(float);
    return (bytes + 7) / 8 * 8;
}

void moed_gate_record_write(void *record, const struct moed_routing *routing, size_t item)
{
    const size_t k = routing->top_k, experts = routing->experts;
    const struct record to = record_at(record, k);
    const int32_t *const served = routing->expert + item * k;
    assert(is_routed(routing, item));
    for (size_t slot = 0; slot < k; slot++) {
        to.seconds[slot] = served[slot] < 0 ? DROPPED : routing->seconds[served[slot]];
        to.choice[slot] = routing->choice[item * k + slot];
        to.weight[slot] = routing->weight[item * k + slot];
    }
    to.certainty[0] = routing->entropy[item];
    to.certainty[1] = routing->margin[item];
    memcpy(to.probability, routing->probability + item * experts, experts * sizeof(float));
}

const int32_t *moed_gate_record_choice(const void *record, size_t top_k)
{
    return record_at(record, top_k).choice;
}

static inline void count_record(struct moed_gate_counts *counts, const void *from, size_t k,
                                uint64_t now)
{
    const struct record record = record_at(from, k);
    const struct weighing weighing = weigh(counts, record.weight, k);
    counts->expert[record.choice[0]].top1++;
    for (size_t slot = 0; slot < k && record.choice[slot] >= 0; slot++) {
        struct moed_expert_counts *expert = &counts->expert[record.choice[slot]];
        if (record.seconds[slot] == DROPPED)
            expert->dropped++;
        else
            count_served(expert, &weighing, (double)record.weight[slot], record.seconds[slot], now);
    }
}

static inline void count_each(struct moed_gate_counts *counts, size_t k,
                              const struct moed_gate_records *records)
{
    const char *record = records->first, *time = (const char *)records->time;
    for (size_t i = 0; i < records->count; i++, record += records->pitch, time += records->pitch)
        count_record(counts, record, k, *(const uint64_t *)time);
}

/* Loops over two experts, as most gates choose, are none. */
void moed_gate_counts_count_records(struct moed_gate_counts *counts, size_t top_k,
                                    const struct moed_gate_records *records)
{
    const size_t pitch = records->pitch / sizeof(float);
    const struct record first = record_at(records->first, top_k);
    assert(records->count <= EXACT_ITEMS);
    counts->items += records->count;
    if (top_k == 2)
        count_each(counts, 2, records);
    else
        count_each(counts, top_k, records);
    const struct distributions of = {.items = records->count,
                                     .entropy = first.certainty,
                                     .margin = first.certainty + 1,
                                     .probability = first.probability,
                                     .pitch = pitch,
                                     .probability_pitch = pitch};
    count_certainty(counts, &of);
    count_probabilities(counts, &of);
}

void moed_gate_counts_count_intervened(struct moed_gate_counts *counts,
                                       const struct moed_routing *routing, size_t first, size_t end)
{
    assert(first <= end && end <= routing->items);
    for (; first < end; first++)
        counts->intervened += is_routed(routing, first);
}

/* ---- arithmetic ---- */

/* to += sign * from, modulo 2^64. */
static void accumulate(struct moed_gate_counts *to, const struct moed_gate_counts *from,
                       uint64_t sign)
{
    const __int128 wide = (int64_t)sign;
    assert(to->experts == from->experts);
    to->items += sign * from->items;
    to->intervened += sign * from->intervened;
    to->overflowed += sign * from->overflowed;
    to->entropy += wide * from->entropy;
    to->margin += wide * from->margin;
    for (size_t i = 0; i < MOED_HISTOGRAM_PARTS; i++) {
        to->entropies[i] += sign * from->entropies[i];
        to->margins[i] += sign * from->margins[i];
    }
    for (size_t e = 0; e < to->experts; e++) {
        struct moed_expert_counts *expert = &to->expert[e];
        const struct moed_expert_counts *other = &from->expert[e];
        expert->selected += sign * other->selected;
        expert->top1 += sign * other->top1;
        expert->dropped += sign * other->dropped;
        expert->weight += wide * other->weight;
        expert->part += wide * other->part;
        expert->probability += wide * other->probability;
        expert->seconds += wide * other->seconds;
        expert->last = other->last > expert->last ? other->last : expert->last;
    }
}

void moed_gate_counts_add(struct moed_gate_counts *to, const struct moed_gate_counts *from)
{
    accumulate(to, from, 1);
}

void moed_gate_counts_subtract(struct moed_gate_counts *from, const struct moed_gate_counts *then)
{
    accumulate(from, then, (uint64_t)-1);
}
