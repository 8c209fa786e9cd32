/* What is served: an immutable, sorted list of models, swapped whole when that changes. Whoever
 * reads one holds it; the last to let go frees it. */
#ifndef SERVER_CATALOG_H
#define SERVER_CATALOG_H

#include "server/model.h"

struct catalog {
    atomic_size_t holders;
    struct model **models; /* by name, then by version, lowest first; held */
    size_t count;
    size_t *slots;     /* [slot_count] hash of a name -> 1 + index of its lowest version; 0: free */
    size_t slot_count; /* a power of two */
};

/* Takes the array and the caller's holds on its models; sorts. The caller holds the catalog. */
struct catalog *catalog_new(struct model **models, size_t count);

/* Another holder; returns `catalog`. */
struct catalog *catalog_hold(struct catalog *catalog);

/* NULL is let go of, too. */
void catalog_release(struct catalog *catalog);

/* `version` NULL: the highest. On failure NULL and a 404 that says what there is instead. The model
 * is the catalog's: hold it to keep it. */
MUST_CHECK struct model *catalog_find(const struct catalog *catalog, const char *name,
                                      const char *version, struct error *err);

/* Whether it is this very model that is served under its name and version. */
bool catalog_has(const struct catalog *catalog, const struct model *model);

/* The versions of a model, models[*first] to models[*last - 1]; both are 0 when there are none. */
void catalog_versions(const struct catalog *catalog, const char *name, size_t *first, size_t *last);

#endif
