/* What is counted of a gate beyond core/gate_counts.h, since the load only: who is chosen together,
 * at which rank, for which class, and how many experts a batch keeps busy. Too much to remember for
 * every step of every window. Integers; details of loops add up. */
#ifndef PROTO_ROUTING_DETAIL_H
#define PROTO_ROUTING_DETAIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/routing_busiest.h"
#include "proto/routing_quality.h"

/* Numbers per table, 2 MiB, and in tables of a kind of all gates of a model, 64 MiB, of which each
 * gate has its part: what would take more is left out, but for pairs, which are then those of the
 * busiest experts. Pairs of 256 experts are 512 KiB: 128 gates have theirs. */
enum { DETAIL_MAX_CELLS = 1 << 18, DETAIL_ALL_CELLS = 1 << 23 };

/* The latest uses of experts that each counter keeps, 32 KiB. */
enum { DETAIL_RECENT = 1 << 14 };

/* Cells of `quality`, 336 bytes each: 2.6 MiB. What would take more is left out. */
enum { DETAIL_MAX_QUALITIES = 1 << 13 };

/* Tables are owned, and allocated by the first item that needs them. NULL: nothing was counted in
 * it yet, or it is left out because it is too large or there was no memory for it. */
struct routing_detail {
    size_t experts, top_k, classes; /* classes 0: the model has none */
    size_t part;                    /* of DETAIL_ALL_CELLS */
    unsigned left_out;              /* bits, by table (routing_detail.c) */
    bool made;                      /* tables of choices are there, or left out */
    uint64_t *ranks;                /* [experts, top_k] items that chose it at that rank */
    struct routing_busiest busiest; /* whose pairs are counted */
    uint64_t *pairs; /* [busiest.side, busiest.side], i < j: items that chose both. Left out where
                        every item chooses every expert or one; NULL, too, before the busiest are
                        chosen, where they are not all */
    uint64_t *predicted; /* [experts, classes] items that ranked it first, by the class answered */
    uint64_t *truth;     /* the same by the true class, where that came to be known */
    uint64_t *distinct;  /* [experts] batches that kept 1, 2, ... experts busy */
    uint64_t *correct;   /* [experts, classes] those in `truth` that were answered so */
    struct routing_quality *quality;     /* [experts, classes] what those answers were worth */
    uint64_t batches;                    /* executed with items that are counted */
    uint64_t batch_items, batch_experts; /* sums over them; experts: distinct ones */
    uint16_t *recent;  /* [room] a ring of choices in their order. Left out where every item chooses
                          every expert. Of a sum: those of one counter after those of the other */
    uint64_t recorded; /* choices, ever; of a sum: in `recent` */
    size_t room;       /* DETAIL_RECENT; of a sum: as many as are recorded */
    uint64_t latest;   /* number of the latest batch */
    size_t busy;       /* experts that it has kept busy so far */
    uint64_t *seen;    /* [experts] number of the latest batch that chose it; never in a sum */
};

/* Of one of `gates` gates of a model. */
void routing_detail_init(struct routing_detail *detail, size_t experts, size_t top_k,
                         size_t classes, size_t gates);
/* Only batches and the latest uses. */
void routing_detail_init_steps(struct routing_detail *detail, size_t experts, size_t top_k);
void routing_detail_close(struct routing_detail *detail);
void routing_detail_reset(struct routing_detail *detail);

/* Counts items' choices: choice [items, top_k], best first; -1: padding, or nothing more was
 * chosen, which is not counted. batch: a number from 1 on, that grows from batch to batch; items of
 * one may come in parts. */
void routing_detail_count(struct routing_detail *detail, const int32_t *choice, size_t items,
                          uint64_t batch);

/* Counts items that were each all of a batch of their own, which it is cheaper to count: their
 * choices, each `pitch` numbers after the one before, of which the first is never -1. Batches with
 * numbers may come before and after, if none of them is one of these. */
void routing_detail_count_alone(struct routing_detail *detail, const int32_t *choice, size_t pitch,
                                size_t items);

/* Counts the class, answered or true, of an item that ranked `expert` first. Ignores an expert or a
 * class that does not exist: -1, for padding, or not known. */
void routing_detail_predict(struct routing_detail *detail, size_t expert, size_t class);
void routing_detail_label(struct routing_detail *detail, size_t expert, size_t class,
                          const struct routing_verdict *verdict);

/* Allocates what a sum consists of, so that tables without counts are zero, not NULL. */
void routing_detail_fill(struct routing_detail *detail);

/* Whether such a gate's latest uses are kept. */
bool routing_detail_has_uses(const struct routing_detail *detail);
/* Of a sum: gives up all but the latest uses. */
void routing_detail_keep_latest(struct routing_detail *sum, size_t uses);

/* Whether pairs are only those of the busiest experts, and whether these have still to be chosen.
 */
static inline bool routing_detail_has_busiest(const struct routing_detail *detail)
{
    return detail->busiest.side > 0 && detail->busiest.side < detail->experts;
}
static inline bool routing_detail_wants_busiest(const struct routing_detail *detail)
{
    return routing_detail_has_busiest(detail) && !detail->busiest.expert;
}

/* None are chosen, and no pairs counted. */
void routing_detail_forget_busiest(struct routing_detail *detail);

/* Chooses them: expert[busiest.side], ascending. Without memory nothing is chosen. */
void routing_detail_choose(struct routing_detail *detail, const uint16_t *expert, uint64_t since);

/* The expert of a row of `pairs`. */
static inline size_t routing_detail_paired(const struct routing_detail *detail, size_t row)
{
    return detail->busiest.expert ? detail->busiest.expert[row] : row;
}

/* One of the tables that add up, in a fixed order, for who stores them; `make`: allocated if need
 * be. *cells receives its numbers. NULL: not there; left out for good if *left_out. */
enum { DETAIL_PAIRS = 1, DETAIL_TABLES = 6 };
uint64_t *routing_detail_table(struct routing_detail *detail, size_t index, bool make,
                               size_t *cells, bool *left_out);
void routing_detail_leave_out(struct routing_detail *detail, size_t index);

/* The same for `quality`, of experts x classes cells. */
struct routing_quality *routing_detail_quality(struct routing_detail *detail, bool make,
                                               bool *left_out);
void routing_detail_leave_out_quality(struct routing_detail *detail);

/* to += from, of the same sizes and busiest experts, where both have chosen them. A table that one
 * of them has left out is left out of the sum. */
void routing_detail_add(struct routing_detail *to, const struct routing_detail *from);

/* Mutual information of row and column of a table of counts, in bits: H(row) + H(column) -
 * H(both); 0 without counts. */
double routing_mutual_information(const uint64_t *counts, size_t rows, size_t columns);
/* H(column | row), in bits: 0 when every row has one column; 0 without counts. */
double routing_dispatch_entropy(const uint64_t *counts, size_t rows, size_t columns);

/* Of a sum: how many times as often as by chance the experts of rows i and j of `pairs` are chosen
 * together: items that chose both x items / (items that chose i x items that chose j); 0 if one was
 * never chosen. */
bool routing_has_lifts(const struct routing_detail *detail);
double routing_lift(const struct routing_detail *detail, size_t i, size_t j);

#endif
