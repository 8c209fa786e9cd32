/* The loader thread: reads, packs and warms up models away from the loops, and frees them there,
 * for both take long. Once the first look has ended it does so at a lower priority than theirs.
 *
 * The repository is the thread's own. Of what changes in it the thread publishes a catalog and
 * wakes the loops, each of which takes the newest and lets go of the one before. Who asked for a
 * change is told when every loop has taken it. */
#ifndef SERVER_LOADER_H
#define SERVER_LOADER_H

#include <sys/queue.h>
#include <uv.h>

#include "server/models/repository.h"

struct loader_options {
    struct repository_options repository; /* the loader fills stopping, on_change and context */
    uint64_t poll_ns;                     /* looks so often for what has changed; 0: never */
    const char *wanted; /* names to load at the start, separated by commas; "*": all; NULL: none */
    bool strict;        /* a start with a failure fails */
    size_t loops;       /* that take catalogs */
    void *context;      /* of the callbacks, which run on the loader's thread */
    void (*on_published)(void *context); /* there is a new catalog: loops should take it */
    /* The first look has ended; `err`: with an error, after which the thread only waits to be
     * stopped. Not called when it was stopped before. */
    void (*on_started)(const struct error *err, void *context);
    /* Before a look that nobody has asked for. */
    void (*on_look)(void *context);
};

/* A change that somebody asked for; memory of who asked. */
struct loader_change {
    bool unload;
    char name[256];
    struct error err;                              /* of the outcome */
    void (*on_done)(struct loader_change *change); /* on the loader's thread */
    TAILQ_ENTRY(loader_change) link;
};

struct loader {
    struct loader_options options;
    struct repository repository; /* the thread's own */
    uv_thread_t thread;
    atomic_bool stopping;

    uv_mutex_t mutex; /* guards the rest */
    uv_cond_t wake;
    TAILQ_HEAD(, loader_change) changes; /* not begun */
    bool asked;                          /* to look */
    bool damaged;                        /* some model is */
    bool working;                        /* in the middle of something */
    uint64_t worked_ns;                  /* when it was, last; the thread's */
    bool waits;                          /* for the list of experts in quarantine; the thread's */
    struct catalog *newest;              /* held */
    uint64_t published;                  /* catalogs, so far */
    uint64_t *taken; /* [loops] how many there were when it last served a new one */
};

/* Reads nothing yet: the newest catalog is empty. */
void loader_init(struct loader *loader, const struct loader_options *options);

/* Starts the thread, which looks at the repository. */
MUST_CHECK int loader_start(struct loader *loader, struct error *err);

/* Asks for another look; any thread. Returns at once. */
void loader_look(struct loader *loader);

/* A model was found to be damaged: it will be served no more. Any thread. */
void loader_check(struct loader *loader);

/* Asks for a change; any thread. on_done is called in any case, also when the loader is stopped. */
void loader_submit(struct loader *loader, struct loader_change *change);

/* The newest catalog, held for a loop, and how many there have been. The loop then says that it
 * serves it, and no older one from now on. */
struct catalog *loader_take(struct loader *loader, uint64_t *published);
void loader_taken(struct loader *loader, size_t loop, uint64_t published);

/* The same for somebody else, who may use older ones. Any thread. */
struct catalog *loader_newest(struct loader *loader);

/* A loop will take no more. */
void loader_leave(struct loader *loader, size_t loop);

/* Ends the thread. False when it is in the middle of a model, for which the end of the process
 * should not wait: the loader and what it uses must then be left as they are. */
bool loader_stop(struct loader *loader);
void loader_close(struct loader *loader);

#endif
