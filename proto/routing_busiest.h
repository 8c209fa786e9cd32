/* Which pairs of experts a gate counts: all, or, where their table would be too large, those among
 * its busiest experts. These are chosen once, when enough has been counted to tell them, and stay
 * until a reset: an exact count of known pairs since a known time, which adds up over loops and
 * restarts. Every other pair is counted as outside, so that nothing is lost unseen. */
#ifndef PROTO_ROUTING_BUSIEST_H
#define PROTO_ROUTING_BUSIEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Experts whose pairs are counted, at most: a table of 512 KiB. */
enum { BUSIEST_MAX = 256 };

/* Selections of an expert, on the average, that tell the busiest. */
enum { BUSIEST_ENOUGH = 16 };

struct routing_busiest {
    size_t side;      /* experts whose pairs are counted; 0: none, the gate chooses one or all */
    uint16_t *expert; /* [side] ascending; NULL: all, or not chosen yet */
    uint16_t *place;  /* [experts] where each is in `expert`; side: nowhere */
    uint64_t since;   /* when they were chosen, by the caller's clock */
    uint64_t items;   /* counted since then */
    uint64_t outside; /* pairs of them that are not both in `expert` */
};

/* How many experts have their pairs counted in a table of at most `cells`. */
size_t routing_busiest_side(size_t experts, size_t top_k, size_t cells);

/* The `side` experts with most `selected`, of several the lower; expert[side] receives them,
 * ascending. */
void routing_busiest_find(const uint64_t *selected, size_t experts, size_t side, uint16_t *expert);

/* From now on their pairs are counted. Returns -1 without memory: nothing has changed. */
int routing_busiest_choose(struct routing_busiest *busiest, size_t experts, const uint16_t *expert,
                           uint64_t since);

/* None are chosen. */
void routing_busiest_forget(struct routing_busiest *busiest);

/* Counts an item's choice [k] in `pairs` [side, side]: on its diagonal the items that chose an
 * expert, of which lifts are made. */
void routing_busiest_count(struct routing_busiest *busiest, uint64_t *pairs, const int32_t *choice,
                           size_t k);

#endif
