/* What `moectl top` shows, fetched by a thread of its own: a server that does not answer must not
 * keep the keys from working. */
#ifndef MOECTL_SOURCE_H
#define MOECTL_SOURCE_H

#include "clients/c/moectl/document.h"
#include "clients/c/moectl/metrics.h"
#include "clients/c/moectl/settings.h"

struct snapshot {
    json_t *names; /* of all models; NULL: unknown */
    char *model;
    struct document *document; /* NULL: see err */
    struct metrics metrics;
    double time; /* seconds of the monotonic clock */
    struct moed_client_error err;
};

void snapshot_free(struct snapshot *snapshot);

struct source;

/* Fetches at once and then every settings->interval seconds. The caller frees, which takes up to a
 * second while a call is under way. */
MUST_CHECK struct source *source_new(const struct settings *settings,
                                     struct moed_client_error *err);
void source_free(struct source *source);

/* Readable when there is a snapshot to take. */
int source_fd(const struct source *source);

/* The newest snapshot, which the caller frees; NULL: there is none since the last one. */
struct snapshot *source_take(struct source *source);

/* From now on this model (NULL: the busiest since the server's start) and window (NULL: all), the
 * next snapshot at once.
 */
void source_ask(struct source *source, const char *model, const char *window);

#endif
