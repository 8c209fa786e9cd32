/* Rows of small steps that wait to be counted.
 *
 * What the gates decide for one row takes a few lines of memory; the counters that it adds to lie
 * in hundreds of them, which the weights of the next step push out of the cache again. So such rows
 * are kept, each in one piece, and counted together: before there is no room for more, and before
 * anyone looks (stats_lock()). All that is counted of them is copied: sums are what they would be
 * if each row had been counted in its step. */
#ifndef SERVER_PENDING_H
#define SERVER_PENDING_H

#include "server/compute/tally.h"

/* What is kept of a row: this, and what each gate has decided. */
struct pending_row {
    uint64_t time;  /* when it was routed */
    uint64_t batch; /* the number of its step */
    size_t tag;
    bool prompt; /* else generated */
};

struct pending_gate {
    size_t top_k, at; /* at: bytes from the beginning of a row to its record (core/gate_counts.h) */
};

struct pending {
    size_t room, count; /* rows; room 0: none ever wait */
    size_t pitch;       /* bytes of a row */
    char *rows;         /* [room] */
    size_t gate_count;
    struct pending_gate *gates; /* [gate_count] */
};

/* Rows of a model without sequences never wait, nor do those of one whose gates decide so much that
 * few would fit: its steps take long. */
void pending_init(struct pending *pending, const struct moed_model_info *info);
void pending_close(struct pending *pending);

/* Whether a batch is small, and has all that is copied. */
bool pending_takes(const struct pending *pending, const struct tally_batch *batch);

/* Whether there is room for its rows. */
bool pending_has_room(const struct pending *pending, const struct tally_batch *batch);

/* Adds a row of a batch that it takes and has room for. */
void pending_add(struct pending *pending, const struct tally_batch *batch, size_t row,
                 const struct pending_row *about);

static inline const struct pending_row *pending_at(const struct pending *pending, size_t row)
{
    return (const struct pending_row *)(pending->rows + row * pending->pitch);
}

/* [top_k] what a gate chose for a row that waits. */
static inline const int32_t *pending_choice(const struct pending *pending, size_t gate, size_t row)
{
    const struct pending_gate *of = &pending->gates[gate];
    return moed_gate_record_choice(pending->rows + row * pending->pitch + of->at, of->top_k);
}

/* The end of the rows from `first` on that were each alone in their step; `first`: that one was
 * not.
 */
size_t pending_end_alone(const struct pending *pending, size_t first);

/* Counts rows [first, end) that wait. */
void pending_tally(const struct pending *pending, struct tally *tally, size_t first, size_t end);

#endif
