/* What there is: an immutable, sorted list of the models that are served, and the state of every
 * model and version that is known. Swapped whole when that changes. Whoever reads one holds it; the
 * last to let go frees it. */
#ifndef SERVER_CATALOG_H
#define SERVER_CATALOG_H

#include "server/models/model.h"

/* Triton's words for them: model_state_word(). */
enum model_state {
    MODEL_UNAVAILABLE, /* not served; the reason says why */
    MODEL_LOADING,     /* for the first time */
    MODEL_READY,       /* served; a reason says why it is not what is on the disk */
    MODEL_UNLOADING,   /* requests that were accepted are answered, new ones are refused */
    MODEL_STATES
};

const char *model_state_word(enum model_state state);

/* One version of a model, or a model of which no version is known. */
struct model_status {
    char *name, *version; /* version "": of the model as a whole */
    uint64_t version_number;
    enum model_state state;
    char *reason;      /* "" where there is nothing to say */
    bool failed;       /* the files that are there cannot be served */
    uint64_t failures; /* attempts to load it that failed */
};

/* Another name of a version: "stable"; "" of a pinned one. */
struct catalog_label {
    char *name, *label, *version;
};

struct catalog {
    atomic_size_t holders;
    struct model **models; /* by name, then by version, lowest first; held */
    size_t count;
    size_t *slots;     /* [slot_count] hash of a name -> 1 + index of its lowest version; 0: free */
    size_t slot_count; /* a power of two */

    /* What the repository adds before anybody else sees the catalog; owned. */
    struct model_status *statuses; /* in the same order; of all models, served or not */
    size_t status_count;
    struct catalog_label *labels;
    size_t label_count;
    struct catalog_label *pinned; /* the default version of a name, where it is not the highest */
    size_t pinned_count;
    bool complete; /* the repository has been looked through once */
};

/* After labels and pinned versions have been added. */
void catalog_sort_labels(struct catalog *catalog);

/* Takes the array and the caller's holds on its models; sorts. The caller holds the catalog. */
struct catalog *catalog_new(struct model **models, size_t count);

/* Another holder; returns `catalog`. */
struct catalog *catalog_hold(struct catalog *catalog);

/* `catalog` may be NULL. */
void catalog_release(struct catalog *catalog);

/* `version`: a number or a label; NULL: the pinned version, else the highest. On failure NULL and
 * an error: 404 says what there is instead, 503 that the model is known and cannot be served now.
 * The model is the catalog's: hold it to keep it. */
MUST_CHECK struct model *catalog_find(const struct catalog *catalog, const char *name,
                                      const char *version, struct error *err);

/* Whether it is this very model that is served under its name and version. */
bool catalog_has(const struct catalog *catalog, const struct model *model);

/* The versions of a model, models[*first] to models[*last - 1]; both are 0 when there are none. */
void catalog_versions(const struct catalog *catalog, const char *name, size_t *first, size_t *last);

/* Whether a server with this catalog should get requests: all models have been looked at, and at
 * least one is served where any should be. */
bool catalog_is_ready(const struct catalog *catalog);

#endif
