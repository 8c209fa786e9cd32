/* Decides which lane's work runs when, and on which thread. Loop thread only.
 *
 * The policy is work-conserving: whenever compute is free, ready work runs. A piece that costs less
 * than a hand-over runs on the loop thread itself; larger ones go to the compute thread, one at a
 * time. There the lane goes first that has had the least compute time, as measured (start-time fair
 * queueing, Goyal, Vin and Cheng 1996), so a flood for one model leaves the others their share.
 * While several lanes use the thread, each is told to keep its pieces short: a piece that has begun
 * is never interrupted, and everybody waits for its end. */
#ifndef SERVER_SCHEDULER_H
#define SERVER_SCHEDULER_H

#include "server/compute/engine.h"

TAILQ_HEAD(lane_list, lane);

struct scheduler {
    struct engine engine;
    struct lane_list lanes; /* that have work; the last user of the compute thread comes last */
    uint64_t turn_ns;       /* virtual time: that of the last piece when it began */
    struct scheduler_use {
        const struct lane *lane;
        uint64_t ended_ns;
    } last, before; /* users of the compute thread: the last one, and the last other one */

    /* Run what arrived in this turn of the loop: `check` after requests were read from sockets,
     * `prepare` for those read from a timer. `again` keeps the loop from sleeping while work is
     * left. */
    uv_check_t check;
    uv_prepare_t prepare;
    uv_idle_t again;
    uv_timer_t hold; /* fires when held work is due */

    void (*on_empty)(struct lane *lane, void *context);
    void *context;
};

/* `on_empty` is called for a lane that has done its last piece, and may free it. */
MUST_CHECK int scheduler_init(struct scheduler *scheduler, uv_loop_t *loop, unsigned threads,
                              void (*on_empty)(struct lane *lane, void *context), void *context,
                              struct error *err);

/* Needs every lane to be empty and not busy. */
void scheduler_close(struct scheduler *scheduler);

/* Tells that the lane has work, which runs in this turn of the loop, or when compute is free. */
void scheduler_wake(struct scheduler *scheduler, struct lane *lane);

/* The lane is about to be freed: nobody waits for it any more. */
void scheduler_leave(struct scheduler *scheduler, const struct lane *lane);

/* A request that costs less is computed as soon as it is read: suspending and resuming its
 * connection would cost more than batching could save. */
enum { SCHEDULER_SMALL_COST = 100 * 1000 };

/* Runs all pieces of a lane that is not busy, on the calling thread. */
void scheduler_run_now(struct lane *lane);

#endif
