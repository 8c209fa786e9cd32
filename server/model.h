/* One version of one model, shared by everything that serves it: loops, lanes, jobs, exchanges and
 * catalogs hold it, and the last to let go frees it. Immutable but for its counters. */
#ifndef SERVER_MODEL_H
#define SERVER_MODEL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/moed.h"
#include "proto/routing_drift.h"
#include "proto/serving.h"
#include "proto/signature.h"
#include "server/stats.h"

struct model_options {
    size_t loops;          /* that will serve it: shards of its statistics */
    size_t max_batch_rows; /* of the warm-up's scratch: what cannot be computed is not loaded */
    unsigned threads;      /* the same */
    size_t max_tags;       /* that its statistics tell apart */
    bool int8;             /* matrices in 8 bits */
    bool copy;             /* files are copied, not mapped */
};

struct model {
    atomic_size_t holders;
    char *name, *version;
    uint64_t version_number;
    struct serving_limits limits; /* its own; what is unset is the server's */
    struct moed_model *engine;
    const struct moed_model_info *info;
    uint64_t cost_per_row; /* multiply-accumulates, or what takes as long, as the warm-up showed */
    struct signature signature;
    struct signature_tensor *tensors; /* inputs, then outputs; the signature points into it */
    struct signature_gate *gates;
    uint32_t *items_per_row;           /* [gate_count] */
    int class_output;                  /* that labels are about; -1: none */
    struct routing_sample *references; /* [gate_count] known-good routing; without items: none */
    atomic_bool damage_told;           /* somebody has been told that the engine is damaged */
    struct model_stats *stats;         /* may be older than the model: a reload goes on counting */
};

/* Loads <directory> as version `version` of model `name`, and runs rows through it, so that the
 * first request finds everything in place. The caller holds it. NULL with an error. */
MUST_CHECK struct model *model_load(const char *directory, const char *name, const char *version,
                                    const struct model_options *options,
                                    const struct serving *serving, struct error *err);

/* For models nobody else has seen yet: goes on with the counters of another if its gates are alike.
 * Whether they are. */
bool model_adopt_stats(struct model *model, const struct model *other);

/* Of the output that labels are about; 0: there is none. */
size_t model_classes(const struct model *model);

/* Another holder; returns `model`. Any thread that holds it, or a catalog that does, may. */
struct model *model_hold(struct model *model);

/* NULL is let go of, too. */
void model_release(struct model *model);

/* The most rows of one request, where the server's option says `option`. */
static inline uint64_t model_max_request_rows(const struct model *model, uint64_t option)
{
    const uint64_t rows = serving_limit(model->limits.max_request_rows, option);
    return rows < model->limits.max_queue_rows ? rows : model->limits.max_queue_rows;
}

/* Changes when a file in `directory` does: names, sizes, inodes and times. serving.json is no part
 * of the model. */
uint64_t model_fingerprint(const char *directory);

#endif
