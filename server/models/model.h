/* One version of one model, shared by everything that serves it: loops, lanes, jobs, exchanges and
 * catalogs hold it, and the last to let go frees it. Immutable but for its counters. */
#ifndef SERVER_MODEL_H
#define SERVER_MODEL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/moed.h"
#include "proto/language.h"
#include "proto/pooling.h"
#include "proto/routing_drift.h"
#include "proto/serving.h"
#include "proto/signature.h"
#include "proto/words.h"
#include "server/models/model_info.h"
#include "server/statistics/quarantine.h"
#include "server/statistics/stats.h"

struct model_options {
    size_t loops;          /* that will serve it: shards of its statistics */
    size_t max_batch_rows; /* of the warm-up's scratch: what cannot be computed is not loaded */
    size_t step_tokens;    /* the same, of models of sequences */
    unsigned threads;      /* of the warm-up's scratch */
    size_t max_tags;       /* that its statistics tell apart */
    enum moed_weights weights;
    enum moed_activations activations;
    bool kv_f32;                   /* keys and values in F32, not F16 */
    bool copy;                     /* files are copied, not mapped */
    struct quarantine *quarantine; /* of the process; NULL: none */
};

struct model {
    atomic_size_t holders;
    char *name, *version;
    uint64_t version_number;
    struct serving_limits limits; /* its own; what is unset is the server's */
    struct moed_model *engine;
    const struct moed_model_info *info;
    struct language *language; /* NULL: it takes and gives numbers */
    struct pooling pooling;    /* of an encoder's rows */
    int64_t loaded;            /* when; seconds since 1970 */
    uint64_t scratch_bytes;    /* of each loop */
    uint64_t cost_per_row; /* multiply-accumulates, or what takes as long, as the warm-up showed */
    struct signature signature;
    struct signature_tensor *tensors; /* inputs, then outputs; the signature points into it */
    struct signature_gate *gates;
    struct words *words;               /* [input_count] of inputs that have some */
    uint32_t *items_per_row;           /* [gate_count] */
    int class_output;                  /* that labels are about; -1: none */
    struct routing_sample *references; /* [gate_count] known-good routing; without items: none */
    atomic_bool damage_told;           /* somebody has been told that the engine is damaged */
    struct model_stats *stats;         /* may be older than the model: a reload goes on counting */
    struct quarantine *quarantine;     /* of the process; NULL: none */
    uv_mutex_t mutex;                  /* guards the next */
    struct quarantined *quarantined;   /* held; NULL: not worked out yet */
};

/* Loads <directory> as version `version` of model `name`, and runs rows through it, so that the
 * first request finds everything in place. The caller holds it. NULL with an error. */
MUST_CHECK struct model *model_load(const char *directory, const char *name, const char *version,
                                    const struct model_options *options,
                                    const struct serving *serving, struct error *err);

/* Logs what it takes. */
void model_tell_loaded(const struct model *model);

/* For models nobody else has seen yet: goes on with the counters of another if its gates are alike.
 * Whether they are. */
bool model_adopt_stats(struct model *model, const struct model *other);

/* Of the output that labels are about; 0: there is none. */
size_t model_classes(const struct model *model);

/* Whether its rows are tokens of sequences, and the most of one. */
static inline bool model_has_sequences(const struct model *model)
{
    return model->info->sequence;
}

static inline bool model_keeps_positions(const struct model *model)
{
    return info_keeps_positions(model->info);
}

/* What `moed serve` loads models with. */
struct moed_load_options model_load_options(const struct model_options *options);

static inline bool model_generates(const struct model *model)
{
    return info_generates(model->info);
}

static inline bool model_embeds(const struct model *model)
{
    return info_embeds(model->info);
}

/* Of a model of sequences: token ids are below it. */
static inline size_t model_vocabulary(const struct model *model)
{
    return model->info->inputs[0].categories;
}

/* An encoder computes all of a text at once; this bounds the memory for it. */
enum { MODEL_MAX_TEXT_ROWS = 8192 };

/* Rows of a step of sequences, where the server's option says `option`. */
static inline size_t info_step_rows(const struct moed_model_info *info, size_t option)
{
    const size_t context = info->context;
    const size_t whole = context < MODEL_MAX_TEXT_ROWS ? context : MODEL_MAX_TEXT_ROWS;
    return info_embeds(info) && whole > option ? whole : option;
}

static inline size_t model_step_rows(const struct model *model, size_t option)
{
    return info_step_rows(model->info, option);
}

/* Another holder; returns `model`. Any thread that holds it, or a catalog that does, may. */
struct model *model_hold(struct model *model);

/* `model` may be NULL. */
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
