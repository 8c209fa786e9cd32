/* Loads and unloads that clients of one loop wait for. The loader makes them, one after the other;
 * the loop answers. Loop thread only. */
#ifndef SERVER_CHANGES_H
#define SERVER_CHANGES_H

#include "server/http/http.h"
#include "server/models/loader.h"

struct changes {
    struct loader *loader;
    uv_async_t finished_some;
    TAILQ_HEAD(change_list, change) waiting; /* not answered */
    size_t count;                            /* of these */
    uv_mutex_t mutex;                        /* guards the next */
    struct change_list finished;             /* by the loader, answered or not */
};

MUST_CHECK int changes_init(struct changes *changes, uv_loop_t *loop, struct loader *loader,
                            struct error *err);

/* Answers the exchange when the model is loaded or unloaded and every loop knows, or when that has
 * failed. */
void changes_submit(struct changes *changes, struct exchange *exchange, const char *model,
                    bool unload);

/* The server drains: answers all that wait. What the loader has begun goes on. */
void changes_refuse(struct changes *changes);

/* The loader must have been stopped. */
void changes_close(struct changes *changes);

#endif
