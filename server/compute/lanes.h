/* The lanes of one loop. A lane of rows is made with the first request for its model, one of
 * sequences when the model is served, so that its room is known. Both are freed when the model is
 * no longer served and nothing of it waits or runs. Loop thread only. */
#ifndef SERVER_LANES_H
#define SERVER_LANES_H

#include "server/compute/once.h"
#include "server/compute/sequences.h"
#include "server/models/catalog.h"

struct lanes {
    struct scheduler *scheduler;
    struct once_options options;
    struct sequences_options sequences;
    struct lane **items; /* sorted by the address of their model */
    size_t count;
    struct catalog *catalog; /* the served models; held */
};

/* Takes over the caller's hold on the catalog. `sequences`: NULL where no model is of sequences. */
void lanes_init(struct lanes *lanes, struct scheduler *scheduler,
                const struct once_options *options, const struct sequences_options *sequences,
                struct catalog *catalog);

/* Callback for the scheduler; `context` is the lanes. */
void lanes_on_empty(struct lane *lane, void *context);

/* All lanes must be empty. */
void lanes_close(struct lanes *lanes);

/* The lane of a model of independent rows, and that of a model of sequences. NULL with an error for
 * a model of the other kind, and when there is no memory for a lane. */
MUST_CHECK struct once *lanes_of(struct lanes *lanes, struct model *model, struct error *err);
MUST_CHECK struct sequences *lanes_sequences(struct lanes *lanes, struct model *model,
                                             struct error *err);

/* Serves this catalog from now on. Takes over the caller's hold. */
void lanes_serve(struct lanes *lanes, struct catalog *catalog);

#endif
