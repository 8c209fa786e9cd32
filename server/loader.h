/* The loader thread: reads, packs and warms up models away from the loops, and frees them there,
 * for both take long.
 *
 * The newest catalog is the loader's. After a reload it wakes the loops, each of which picks the
 * catalog up and lets go of the one before; a model that is served no more is freed, by the loader,
 * when nobody else holds it any longer. */
#ifndef SERVER_LOADER_H
#define SERVER_LOADER_H

#include <uv.h>

#include "server/catalog.h"

struct loader {
    const char *directory;
    struct model_options options;
    void (*on_published)(void *context); /* on the loader's thread */
    void *context;

    uv_thread_t thread;
    atomic_bool stopping;
    struct model **retired; /* served no more, held by us and maybe by others; the thread's own */
    size_t retired_count;

    uv_mutex_t mutex; /* guards the rest */
    uv_cond_t wake;
    bool asked;             /* to reload */
    bool loading;           /* a reload is under way */
    struct catalog *newest; /* held */
};

/* Loads everything for the first time, on the caller's thread. -1 with an error. */
MUST_CHECK int loader_init(struct loader *loader, const char *directory,
                           const struct model_options *options, struct error *err);

/* Starts the thread, which tells of each new catalog. */
MUST_CHECK int loader_start(struct loader *loader, void (*on_published)(void *context),
                            void *context, struct error *err);

/* Asks for a reload; any thread. Returns at once. */
void loader_reload(struct loader *loader);

/* The newest catalog, held for the caller. Any thread. */
struct catalog *loader_newest(struct loader *loader);

/* Ends the thread. False when it is in the middle of a model, for which the end of the process
 * should not wait: the loader and what it uses must then be left as they are. */
bool loader_stop(struct loader *loader);
void loader_close(struct loader *loader);

#endif
