/* Batching: which rows are computed when, and on which thread. Loop thread only.
 *
 * The policy is work-conserving: whenever compute is free, what waits is run, up to a full batch;
 * an idle server adds no delay, and batches form because requests arrive while others are computed
 * or because they were read in the same turn of the loop. `max_queue_delay` may hold a batch open.
 *
 * A batch that costs less than a hand-over runs on the loop thread itself; a larger one goes to the
 * compute thread, one at a time, models taking turns. */
#ifndef SERVER_SCHEDULER_H
#define SERVER_SCHEDULER_H

#include "server/engine.h"
#include "server/registry.h"

struct scheduler {
    struct registry *registry;
    struct engine engine;
    uint64_t max_queue_delay_ns;
    size_t turn; /* the model that is asked first: behind the last that got the compute thread */

    /* Runs what arrived in this turn of the loop: `check` after requests were read from sockets,
     * `prepare` for those read from a timer, `again` keeps the loop from sleeping on leftovers. */
    uv_check_t check;
    uv_prepare_t prepare;
    uv_idle_t again;
    uv_timer_t hold; /* until a held batch is due */

    /* All rows of a job are done, or it failed and none is running any more. */
    void (*on_finished)(struct job *job);
};

int scheduler_init(struct scheduler *scheduler, uv_loop_t *loop, struct registry *registry,
                   unsigned threads, uint64_t max_queue_delay_us,
                   void (*on_finished)(struct job *job), struct error *err);

/* Nothing may wait or run any more. */
void scheduler_close(struct scheduler *scheduler);

/* Queues a job's rows; a job small enough is computed before this returns (and on_finished called).
 * On error the job was not queued. */
int scheduler_submit(struct scheduler *scheduler, struct job *job, struct error *err);

/* Gives up on a job: its waiting rows are dropped; on_finished follows, at once unless some of its
 * rows are being computed. job->error says why. */
void scheduler_cancel(struct scheduler *scheduler, struct job *job);

#endif
