/* Which lane's work runs when, and on which thread. Loop thread only.
 *
 * The policy is work-conserving: whenever compute is free, what is ready is run. A piece of work
 * that costs less than a hand-over runs on the loop thread itself; a larger one goes to the compute
 * thread, one at a time, lanes taking turns. */
#ifndef SERVER_SCHEDULER_H
#define SERVER_SCHEDULER_H

#include "server/engine.h"

TAILQ_HEAD(lane_list, lane);

struct scheduler {
    struct engine engine;
    struct lane_list lanes; /* with work; who got the compute thread last comes last */

    /* Runs what arrived in this turn of the loop: `check` after requests were read from sockets,
     * `prepare` for those read from a timer, `again` keeps the loop from sleeping on leftovers. */
    uv_check_t check;
    uv_prepare_t prepare;
    uv_idle_t again;
    uv_timer_t hold; /* until held work is due */

    void (*on_empty)(struct lane *lane, void *context);
    void *context;
};

/* `on_empty` is told of lanes that have done their last piece, and may free them. */
MUST_CHECK int scheduler_init(struct scheduler *scheduler, uv_loop_t *loop, unsigned threads,
                              void (*on_empty)(struct lane *lane, void *context), void *context,
                              struct error *err);

/* Nothing may wait or run any more. */
void scheduler_close(struct scheduler *scheduler);

/* The lane has work: it runs in this turn of the loop, or when compute is free. */
void scheduler_wake(struct scheduler *scheduler, struct lane *lane);

/* Below this cost a request is computed where it is read: suspending and resuming its connection
 * would cost more than batching could save. */
enum { SCHEDULER_SMALL_COST = 100 * 1000 };

/* Runs all the pieces of a lane that is not busy, here and now. */
void scheduler_run_now(struct lane *lane);

#endif
