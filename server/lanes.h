/* The lanes of one loop: made when a model is first asked for, freed when it is served no more and
 * nothing of it waits or runs. Loop thread only. */
#ifndef SERVER_LANES_H
#define SERVER_LANES_H

#include "server/catalog.h"
#include "server/once.h"

struct lanes {
    struct scheduler *scheduler;
    struct once_options options;
    struct once **items; /* by the address of their model */
    size_t count;
    struct catalog *catalog; /* what is served; held */
};

/* Takes the caller's hold on the catalog. */
void lanes_init(struct lanes *lanes, struct scheduler *scheduler,
                const struct once_options *options, struct catalog *catalog);

/* For the scheduler; `context` is the lanes. */
void lanes_on_empty(struct lane *lane, void *context);

/* All lanes must be empty. */
void lanes_close(struct lanes *lanes);

/* The lane of a model. NULL with an error when there is no memory for one. */
MUST_CHECK struct once *lanes_of(struct lanes *lanes, struct model *model, struct error *err);

/* From now on this is what is served. Takes the caller's hold. */
void lanes_serve(struct lanes *lanes, struct catalog *catalog);

#endif
