/* How fast a lane is, as measured: how long a batch of so many rows takes, and how many rows leave
 * its queue in a second. Times are in ns of wall clock, so they have in them what other work takes.
 * Loop thread only. */
#ifndef SERVER_PACE_H
#define SERVER_PACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pace {
    double most;               /* rows of a batch at most */
    double rows, ns;           /* of a large batch */
    double cut_rows, cut_ns;   /* of one that was cut short; 0: none was */
    double left_rows, left_ns; /* rows that left the queue while others waited, and in what time */
    uint64_t since_ns; /* the end of the last batch, if rows have waited ever since; 0: none */
};

/* row_ns: what a row takes, as far as is known. */
void pace_init(struct pace *pace, size_t most_rows, uint64_t row_ns);

/* A batch has been computed. `cut`: it was kept short for others. */
void pace_computed(struct pace *pace, size_t rows, uint64_t compute_ns, bool cut);

/* It has left the queue, where others wait on, or nobody does. */
void pace_left(struct pace *pace, size_t rows, uint64_t now_ns, bool others_wait);

/* Rows of a batch that takes about slice_ns; more if so few would be computed at less than half
 * the speed of a full one, as with large weights, which are read for every batch. */
size_t pace_rows(const struct pace *pace, uint64_t slice_ns);

/* How long so many rows take to leave the queue, in ns; 0: not known. */
double pace_wait_ns(const struct pace *pace, size_t rows);

/* The same for a client: whole seconds, rounded up, at least 1 and at most 30. */
unsigned pace_retry_after(const struct pace *pace, size_t rows);

#endif
