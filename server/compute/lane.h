/* A lane: what one loop does for one model. The scheduler does not know what is in a lane, so
 * models whose work is a batch (server/compute/once.h) and models whose work comes back step by
 * step until it is done can share a loop and its compute thread.
 *
 * A piece of work goes through `begin`, `run`, `finish`. Between begin and finish the lane is busy:
 * `run` may be on the compute thread, and nobody else touches what it uses. */
#ifndef SERVER_LANE_H
#define SERVER_LANE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "core/moed.h"

struct lane;
struct model;

struct lane_kind {
    /* Whether a piece may begin now. If one is held back to wait for more rows, lowers *due_ns to
     * the time at which it stops waiting. */
    bool (*ready)(const struct lane *lane, uint64_t now_ns, uint64_t *due_ns);

    /* Cost of the next piece of a ready lane, in multiply-accumulates or work that takes as long.
     */
    uint64_t (*cost)(const struct lane *lane);

    /* Takes the next piece off the queue; on the loop thread. slice_ns: others wait for compute,
     * too, so a piece that can be cut should take about so long. 0: nobody does. */
    void (*begin)(struct lane *lane, uint64_t slice_ns);

    /* Computes it on `team` (NULL: the calling thread alone); on any thread. */
    void (*run)(struct lane *lane, struct moed_team *team);

    /* Delivers the results, which may bring new work at once; on the loop thread. */
    void (*finish)(struct lane *lane, uint64_t compute_ns);

    /* Whether nothing waits, held back or not. */
    bool (*empty)(const struct lane *lane);

    /* Frees an empty lane that is not busy. */
    void (*free)(struct lane *lane);
};

struct lane {
    const struct lane_kind *kind;
    struct model *model; /* whose work it does; held */
    bool busy;           /* a piece has begun and not finished */
    bool listed;         /* in the scheduler's list: it has or had work */
    uint64_t turn_ns;    /* compute time that it has had, in the scheduler's virtual time */
    uint64_t ended_ns;   /* when the latest piece was computed */
    TAILQ_ENTRY(lane) link;
};

#endif
