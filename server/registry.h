/* The model repository: which models and versions are served under which names.
 *
 * A repository is a directory of checkpoint directories: <name>/config.json, served as version 1,
 * or <name>/<version>/config.json for any number of positive integer versions. A request that names
 * no version gets the highest. Names that begin with a dot are passed over. */
#ifndef SERVER_REGISTRY_H
#define SERVER_REGISTRY_H

#include "server/served.h"

/* Longest model name: it becomes a metric label and part of every log line. */
enum { MAX_MODEL_NAME = 128 };

struct registry {
    struct served **items; /* by name, then by version, lowest first */
    size_t count;
};

/* Loads everything below `directory`. All or nothing: a checkpoint that cannot be served fails the
 * start, where an operator sees it, rather than the first request. */
int registry_init(struct registry *registry, const char *directory,
                  const struct served_options *options, struct error *err);

/* The same models for another loop, in the same order; `first` must outlive it. */
int registry_share(struct registry *registry, const struct registry *first,
                   const struct served_options *options, struct error *err);
void registry_close(struct registry *registry);

/* `version` NULL: the highest. On failure NULL and a 404 that says what there is instead. */
struct served *registry_find(const struct registry *registry, const char *name, const char *version,
                             struct error *err);

/* Where in `items` one of them is. */
size_t registry_index(const struct registry *registry, const struct served *served);

/* The run of versions of the same model that contains item `index`: [*first, *last). */
void registry_versions(const struct registry *registry, const struct served *served, size_t *first,
                       size_t *last);

#endif
