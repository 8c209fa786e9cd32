/* One version of one model, being served by one loop: the engine's model, and beside it everything
 * the loop keeps per model: its queue, its scratch, its counters. Owned by the registry; used on
 * the loop thread only, except for `model` and `scratch`, which the compute thread uses while
 * `busy`, and what queue.h and stats.h open to other threads. */
#ifndef SERVER_SERVED_H
#define SERVER_SERVED_H

#include <stdbool.h>
#include <stdint.h>

#include "core/moed.h"
#include "proto/signature.h"
#include "server/queue.h"
#include "server/stats.h"

struct served_options {
    size_t max_batch_rows;
    size_t max_queue_rows;
    unsigned threads; /* of the compute team */
    bool int8;        /* matrices in 8 bits */
};

struct served {
    char *name, *version;
    uint64_t version_number;
    struct moed_model *model; /* immutable; every loop's is the same */
    bool owns_model;          /* the first loop's does */
    const struct moed_model_info *info;
    struct signature signature;
    struct signature_tensor *tensors; /* inputs, then outputs; the signature points into it */
    struct signature_gate *gates;
    struct moed_scratch *scratch;
    bool busy; /* the compute thread runs a batch of it */
    struct queue queue;
    struct stats stats;
};

/* Runs a batch taken from the queue in `scratch`, on `team` or, if NULL, on the calling thread. */
void served_forward(const struct served *served, struct moed_team *team, const struct batch *batch);

/* Loads <directory> as version `version` of model `name`. NULL on error. */
struct served *served_new(const char *directory, const char *name, const char *version,
                          const struct served_options *options, struct error *err);

/* The same model version for another loop; `first` must outlive it. NULL on error. */
struct served *served_share(const struct served *first, const struct served_options *options,
                            struct error *err);
void served_free(struct served *served);

#endif
