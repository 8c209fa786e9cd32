/* The state directory: a snapshot of every served version's routing statistics,
 * NAME.VERSION.routing, written every interval and at the end by a thread of its own, once more
 * when a version has gone, and read when a model is loaded.
 *
 * Nothing that is wrong with it keeps the server from serving. What cannot be written is told in
 * the log and the metrics; a file that is damaged is renamed to NAME.VERSION.routing.damaged, and
 * counting begins anew. One that cannot be read, or only by a newer moed, stays as it is, and
 * nothing is written for its model: it is tried again every interval, and joined with what was
 * counted since. One process uses a directory at a time. */
#ifndef SERVER_STATE_H
#define SERVER_STATE_H

#include <stdatomic.h>

#include "server/models/catalog.h"

struct state {
    const char *directory; /* NULL: there is none, and nothing here does anything */
    uint64_t interval_ns;
    int lock; /* descriptor; -1: another process has the directory, or it cannot be used */
    /* What is served now, held for the caller. */
    struct catalog *(*catalog)(void *context);
    void *context;

    uv_thread_t thread;
    bool has_thread;
    uv_mutex_t mutex; /* guards the next three */
    uv_cond_t wake;
    bool stopping, done;

    uv_mutex_t writing;                 /* one file at a time; guards the next */
    char told[ERROR_TEXT_BYTES];        /* the last failure in the log; "": the last write worked */
    atomic_ullong written, failures;    /* snapshots */
    atomic_ullong damaged;              /* files set aside */
    atomic_ullong last_written_seconds; /* since 1970; 0: none yet */
};

/* Takes the directory, which is made if it is not there. */
void state_init(struct state *state, const char *directory, uint64_t interval_ns);

/* Starts the thread. */
void state_start(struct state *state, struct catalog *(*catalog)(void *context), void *context);

/* Writes everything a last time and ends the thread. False when the disk takes too long: what the
 * thread uses must then be left as it is. Further calls do nothing. */
bool state_stop(struct state *state);

/* When the thread has ended. */
void state_close(struct state *state);

/* Whether anything is kept. */
bool state_is_used(const struct state *state);

/* For a model that nobody else has seen yet: goes on with what is kept of it. */
void state_restore(struct state *state, struct model *model);

/* Writes a model's snapshot now; may take as long as the disk does. Any thread. */
MUST_CHECK int state_save(struct state *state, const struct model *model, struct error *err);

#endif
