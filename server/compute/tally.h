/* What all gates of a model decided for some rows: one block of counts per gate. */
#ifndef SERVER_TALLY_H
#define SERVER_TALLY_H

#include <stdbool.h>

#include "core/gate_counts.h"
#include "core/moed.h"
#include "proto/routing_detail.h"
#include "proto/routing_quality.h"

struct tally {
    uint64_t rows;
    uint64_t labelled;                /* rows whose true class came to be known */
    struct routing_quality **quality; /* [gate_count] [experts] of those; NULL: there are none */
    size_t gate_count;
    struct moed_gate_counts *gates[]; /* [gate_count] in the order of info->gates */
};

/* All zero. The caller frees it. */
struct tally *tally_new(const struct moed_model_info *info);
struct tally *tally_copy(const struct tally *tally);
struct tally *tally_empty(const struct tally *like); /* of as many gates and experts */
void tally_free(struct tally *tally);

/* Counts rows [first, end) of a batch: routing[gate_count] is what each gate decided
 * for all of its `rows`. */
struct tally_batch {
    size_t rows;
    const struct moed_routing *const *routing;
    uint64_t at;         /* stats_now() */
    const float *scores; /* [rows, classes] of the output of classes; NULL: none */
    size_t classes;
};
void tally_count(struct tally *tally, const struct tally_batch *batch, size_t first, size_t end);

/* The same rows were routed as their request asked: they are counted as such, and in nothing else.
 */
void tally_count_intervened(struct tally *tally, const struct tally_batch *batch, size_t first,
                            size_t end);

/* What of some answered rows is needed to judge them. All borrowed. */
struct answered_rows {
    size_t rows;
    size_t classes;
    const float *scores;           /* [rows, classes] the output that labels are about */
    const uint32_t *items_per_row; /* [gate_count] */
    const int32_t *const *first;   /* [gate_count] [rows * items_per_row] the expert that each item
                                      ranked first, by the gate's indices */
};

/* Counts rows whose true classes labels[rows] are known; -1: that one is not. details[gate_count]
 * count them too; NULL: there are none. */
void tally_judge(struct tally *tally, struct routing_detail *details,
                 const struct answered_rows *rows, const int32_t *labels);

/* From now on it has room for quality. */
void tally_need_quality(struct tally *tally);

/* to += from; from -= then. */
void tally_add(struct tally *to, const struct tally *from);
void tally_subtract(struct tally *from, const struct tally *then);

/* *to += from, where NULL is zero; takes over `from`. */
void tally_join(struct tally **to, struct tally *from);

/* Whether they have as many gates, of as many experts. */
bool tally_fits(const struct tally *tally, const struct moed_model_info *info);

#endif
